"""Archives with the layout of ant-media-server-….zip, but without Ant Media's software."""

import io
import zipfile
from pathlib import Path

CLUSTER_CLASS = "io/antmedia/enterprise/cluster/TcpCluster.class"
JAVA_OPTIONS = "-Djava.library.path=/usr/local/antmedia/lib/native"
UNIT = f"""\
[Unit]
Description=Ant Media Server

[Service]
User=antmedia
ExecStart=/usr/bin/env ${{JAVA_HOME}}/bin/java {JAVA_OPTIONS} -XX:+UseBiasedLocking -version
StandardError=append:/usr/local/antmedia/log/antmedia-error.log

[Install]
WantedBy=multi-user.target
"""


def write_archive(path: Path, *, enterprise: bool, version: str = "3.0.3") -> Path:
    """Writes an archive whose content depends on nothing but the arguments."""
    jars = {"lib/ant-media-server-common.jar": "io/antmedia/AppSettings.class"}
    if enterprise:
        jars["lib/ant-media-enterprise.jar"] = CLUSTER_CLASS
    files = {
        "antmedia.service": UNIT,
        "start.sh": "#!/bin/bash\n",
        "create_app.sh": "#!/bin/bash\n",
        "conf/red5.properties": f"server.licence_key=\nversion={version}\n",
        "conf/instanceId": "another server's\n",
        "lib/native-linux-x86_64/libtcnative-1.so": "x86_64\n",
        "lib/native-linux-aarch64/libtcnative-1.so": "aarch64\n",
        "lib/native-mac/libtcnative-1.dylib": "mac\n",
        "webapps/LiveApp/WEB-INF/red5-web.properties": "webapp.contextPath=/LiveApp\n",
        **{name: _zip_bytes({entry: ""}) for name, entry in jars.items()},
    }
    path.write_bytes(_zip_bytes({f"ant-media-server/{name}": content for name, content in files.items()}))
    return path


def _zip_bytes(files: dict[str, str] | dict[str, bytes] | dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)  # with a constant date
            entry.external_attr = (0o755 if name.endswith(".sh") else 0o640) << 16
            archive.writestr(entry, content)
    return buffer.getvalue()
