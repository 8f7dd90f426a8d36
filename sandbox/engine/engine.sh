# Part of setup: the real Pulumi engine, always, and official plugins where they can be had.
# shellcheck shell=bash disable=SC2154  # root, cache, venv and step are setup's

readonly engine_version=3.259.0 aws_version=7.51.1 command_version=1.2.1

# The one on PATH if it is new enough, else the pinned official release, else one built from Go modules.
find_engine() {
  local on_path engine=$cache/engine/$engine_version
  if on_path=$(command -v pulumi) && newer_or_same "$("$on_path" version 2>/dev/null)"; then
    link_engine "$(dirname "$(readlink -f "$on_path")")"
    return
  fi
  if [[ ! -x $engine/pulumi ]]; then
    rm -rf "$engine.new"
    mkdir -p "$engine.new"
    if ! download_release "$engine.new"; then
      echo "==> No Pulumi release can be downloaded here; building the engine from its Go modules"
      command -v go >/dev/null || fail "Neither a Pulumi release nor Go is to be had: install Pulumi $engine_version or Go 1.26, then run this again."
      step "Building Pulumi $engine_version (5 to 7 minutes on two cores)" build_engine "$engine.new"
    fi
    rm -rf "$engine"
    mv "$engine.new" "$engine"
  fi
  link_engine "$engine"
}

newer_or_same() {
  printf '%s\n' "v$engine_version" "$1" | sort --version-sort --check=quiet
}

link_engine() {
  ln -sfn "$1" "$venv/engine"
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

# The -X is what a release build does: the Automation API refuses an engine without a version. It is built a fifth faster
# with more memory before Go collects its garbage, and without the notes for debuggers that -w takes out again.
build_engine() {
  local target=$1
  cd "$root/sandbox/engine" || return
  GOGC=400 GOFLAGS=-mod=readonly go build -v -o "$target/pulumi" -gcflags=all=-dwarf=false \
    -ldflags "-s -w -X github.com/pulumi/pulumi/sdk/v3/go/common/version.Version=$engine_version" \
    github.com/pulumi/pulumi/pkg/v3/cmd/pulumi
}

# A stand-in is put on PATH (in .venv/plugins) only for a plugin that is neither installed nor to be had.
find_plugins() {
  local pulumi=$venv/engine/pulumi plugins=$venv/plugins name version
  [[ -e $plugins/chosen ]] && return
  rm -rf "$plugins"
  mkdir -p "$plugins"
  if [[ ! -x $venv/engine/pulumi-language-python ]] && ! command -v pulumi-language-python >/dev/null; then
    stand_in pulumi-language-python
  fi
  while read -r name version; do
    if ! PULUMI_SKIP_UPDATE_CHECK=1 timeout 300 "$pulumi" plugin install resource "$name" "$version" >>"$log" 2>&1; then
      stand_in "pulumi-resource-$name"
    fi
  done <<<"aws $aws_version
command $command_version"
  touch "$plugins/chosen"
}

stand_in() {
  echo "    the official $1 is not to be had here: its stand-in serves"
  ln -sfn "$root/sandbox/plugins/$1" "$venv/plugins/$1"
}
