# Part of setup: installs the Pulumi engine, and the plugins into the sandbox's own PULUMI_HOME.
# shellcheck shell=bash disable=SC2154  # root, cache, venv and step are setup's

readonly engine_version=3.259.0 aws_version=7.51.1 command_version=1.2.1

# Prefers the engine on PATH if it is new enough, then the official release, then a build from Go modules.
find_engine() {
  local on_path engine=$cache/engine/$engine_version
  if on_path=$(command -v pulumi) && is_new_enough "$("$on_path" version 2>/dev/null)"; then
    link_engine "$(dirname "$(readlink -f "$on_path")")"
    return
  fi
  # A release has the language host beside the engine. A build has not, so the release is tried again.
  if [[ ! -x $engine/pulumi ]] || { [[ ! -x $engine/pulumi-language-python ]] && can_download; }; then
    install_engine "$engine"
  fi
  link_engine "$engine"
}

is_new_enough() {
  printf '%s\n' "$engine_version" "${1#v}" | sort --version-sort --check=quiet
}

link_engine() {
  ln -sfn "$1" "$venv/engine"
}

install_engine() {
  local engine=$1
  rm -rf "$engine.new"
  mkdir -p "$engine.new"
  if ! download_release "$engine.new"; then
    if [[ -x $engine/pulumi ]]; then
      return
    fi
    echo "==> The Pulumi release cannot be downloaded; building the engine from its Go modules"
    command -v go >/dev/null || fail "Pulumi cannot be downloaded, and Go is not installed: install Pulumi $engine_version or Go 1.26, then run this again."
    step "Building Pulumi $engine_version (5 to 7 minutes on two cores)" build_engine "$engine.new"
  fi
  rm -rf "$engine"
  mv "$engine.new" "$engine"
}

# Succeeds only with the internet. Asked once in a set-up, so that an offline machine waits three seconds at most.
can_download() {
  if [[ -z ${downloads:-} ]]; then
    downloads=no
    if curl --silent --head --connect-timeout 2 --max-time 3 --output /dev/null https://github.com; then
      downloads=yes
    fi
  fi
  [[ $downloads == yes ]]
}

download_release() {
  local target=$1 machine archive url
  case $(uname -m) in
    x86_64) machine=linux-x64 ;;
    aarch64) machine=linux-arm64 ;;
    *) return 1 ;;
  esac
  archive=pulumi-v$engine_version-$machine.tar.gz
  url=https://github.com/pulumi/pulumi/releases/download/v$engine_version
  echo "==> Downloading Pulumi $engine_version"
  (
    cd "$target" || exit
    curl --fail --silent --show-error --location --connect-timeout 10 --remote-name "$url/$archive" \
      --output checksums.txt "$url/pulumi-$engine_version-checksums.txt" &&
      grep " [*]\{0,1\}$archive\$" checksums.txt | sha256sum --check --strict --status &&
      tar --extract --gzip --strip-components 1 --file "$archive" &&
      rm "$archive" checksums.txt
  ) >>"$log" 2>&1
}

# The Automation API refuses an engine without a version, so -X sets it as a release build does. A higher GOGC and no debug
# information (which -w would strip anyway) make the build a fifth faster.
build_engine() {
  local target=$1
  cd "$root/sandbox/engine" || return
  GOGC=400 GOFLAGS=-mod=readonly go build -v -o "$target/pulumi" -gcflags=all=-dwarf=false \
    -ldflags "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=$engine_version" \
    github.com/pulumi/pulumi/pkg/v3/cmd/pulumi
}

# Only the sandbox uses this PULUMI_HOME, so no other stack finds a stand-in.
find_plugins() {
  disable_logs
  if [[ ! -x $venv/engine/pulumi-language-python ]]; then
    install_stand_in "language-python-v$engine_version"
  fi
  find_plugin aws "$aws_version"
  find_plugin command "$command_version"
}

# With a file in place of their folder, the engine writes no logs: at its most detailed level, compressed and encrypted, they
# take a fifth to half of its CPU time. It has no setting for it.
disable_logs() {
  local logs=$venv/pulumi-home/logs
  if [[ ! -f $logs ]]; then
    mkdir -p "$venv/pulumi-home"
    rm -rf "$logs"
    touch "$logs"
  fi
}

# Links the official plugin from the user's plugin folder. A stand-in serves until it can be downloaded.
find_plugin() {
  local name=$1 version=$2 plugin=resource-$1-v$2 official own
  official=${PULUMI_HOME:-$HOME/.pulumi}/plugins/$plugin
  own=$venv/pulumi-home/plugins/$plugin
  if [[ ! -x $official/pulumi-resource-$name ]] && can_download; then
    PULUMI_SKIP_UPDATE_CHECK=1 timeout 300 "$venv/engine/pulumi" plugin install resource "$name" "$version" >>"$log" 2>&1 || true
  fi
  if [[ ! -x $official/pulumi-resource-$name ]]; then
    install_stand_in "$plugin"
  elif [[ ! -L $own/pulumi-resource-$name ]]; then
    rm -rf "$own"
    mkdir -p "$venv/pulumi-home/plugins"
    cp --recursive --symbolic-link "$official" "$own"
  fi
}

install_stand_in() {
  local plugin=$1
  if [[ ! -x $venv/pulumi-home/plugins/$plugin/pulumi-${plugin%-v*} ]]; then
    echo "    using the stand-in for pulumi-${plugin%-v*}: the official plugin cannot be downloaded"
    "$root/sandbox/plugins/install" "$venv/pulumi-home" "$plugin"
  fi
}
