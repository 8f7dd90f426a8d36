"""Archives with the layout of ant-media-server-….zip, but without Ant Media's software."""

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.project import PROJECT

STAND_IN = PROJECT / "sandbox/images/ant-media"
CLUSTER_CLASS = "io/antmedia/enterprise/cluster/TcpCluster.class"
JAVA_OPTIONS = "-Djava.library.path=/usr/local/antmedia/lib/native"
UNIT = f"""\
[Unit]
Description=Ant Media Server

[Service]
Environment=JAVA_HOME=/usr/lib/jvm/java-17-openjdk-amd64
User=antmedia
ExecStart=/usr/bin/env ${{JAVA_HOME}}/bin/java {JAVA_OPTIONS} -XX:+UseBiasedLocking -version
StandardError=append:/usr/local/antmedia/log/antmedia-error.log

[Install]
WantedBy=multi-user.target
"""


# What the original does: it unpacks StreamApp*.war and writes the name into the application's files.
CREATE_APP = """\
#!/bin/bash
while getopts n:p: option; do
  case $option in n) name=$OPTARG ;; p) home=$OPTARG ;; esac
done
mkdir -p "$home/webapps/$name/WEB-INF"
echo "webapp.contextPath=/$name" >"$home/webapps/$name/WEB-INF/red5-web.properties"
"""


def write_archive(path: Path, *, enterprise: bool, version: str = "3.0.3") -> Path:
    """Writes an archive whose content depends on nothing but the arguments. Its server does not run."""
    jars = {"lib/ant-media-server-common.jar": "io/antmedia/AppSettings.class"}
    if enterprise:
        jars["lib/ant-media-enterprise.jar"] = CLUSTER_CLASS
    files = {
        "antmedia.service": UNIT,
        "start.sh": "#!/bin/bash\n",
        "create_app.sh": CREATE_APP,
        "conf/red5.properties": f"server.licence_key=\nhttp.port=5080\nonlyIn{version}=true\n",
        "conf/jee-container.xml": f"<!-- {version} -->\n",
        "conf/instanceId": "another server's\n",
        "lib/native-linux-x86_64/libtcnative-1.so": "x86_64\n",
        "lib/native-linux-aarch64/libtcnative-1.so": "aarch64\n",
        "lib/native-mac/libtcnative-1.dylib": "mac\n",
        "webapps/LiveApp/WEB-INF/red5-web.properties": "webapp.contextPath=/LiveApp\n",
        "webapps/LiveApp/index.html": f"{version}\n",
    }
    return _write(path, files | _jars(jars))


def write_stand_in_archive(path: Path, version: str, *, starts: bool = True) -> Path:
    """Writes an archive of the sandbox's stand-in, which `/rest/v2/version` reports as the version."""
    server = {
        f"standin/{file.name}": file.read_text()
        for file in (STAND_IN / "standin").iterdir()
        if file.suffix in (".py", ".json")
    }
    assert '"3.0.3"' in server["standin/root.py"]
    server["standin/root.py"] = server["standin/root.py"].replace('"3.0.3"', f'"{version}"')
    if not starts:
        server["standin/__main__.py"] = 'raise SystemExit("Caused by: this version is broken")\n'
    files = {name: (STAND_IN / name).read_text() for name in ("antmedia.service", "change_server_mode.sh")}
    files |= {f"conf/{file.name}": file.read_text() for file in (STAND_IN / "conf").iterdir()}
    settings = files["conf/red5-web.properties"]
    files |= {
        f"webapps/{app}/WEB-INF/red5-web.properties": settings
        for app in ("LiveApp", "WebRTCAppEE", "live", "root")
    }
    return _write(
        path,
        files
        | server
        | {"create_app.sh": CREATE_APP}
        | _jars({"lib/ant-media-enterprise.jar": CLUSTER_CLASS}),
    )


def _jars(classes: dict[str, str]) -> dict[str, bytes]:
    return {jar: _zip_bytes({entry: ""}) for jar, entry in classes.items()}


def _write(path: Path, files: Mapping[str, str | bytes]) -> Path:
    path.write_bytes(_zip_bytes({f"ant-media-server/{name}": content for name, content in files.items()}))
    return path


def _zip_bytes(files: Mapping[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)  # with a constant date
            entry.external_attr = (0o755 if name.endswith(".sh") else 0o640) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
