#!/usr/bin/env bash
# Installs what building and testing Retort needs, and only what is missing. The one list of packages.
# usage: tools/install_packages.sh [build|test]     build: compile and run; test: what the tests add
set -euo pipefail

build_packages=(
  g++ cmake ninja-build git
  libeigen3-dev libdnnl-dev libhwy-dev        # CPU arithmetic
  libcli11-dev libtomlplusplus-dev nlohmann-json3-dev libfmt-dev libxxhash-dev liblzma-dev
  zlib1g-dev libzstd-dev
  libbenchmark-dev                            # distill_bench
)
# Two families of MPI side by side; each gets a plug-in.
mpi_packages=(openmpi-bin libopenmpi-dev mpich libmpich-dev)
test_packages=(libgtest-dev libgmock-dev clang-format python3 xz-utils)

want=("${build_packages[@]}")
if [ "${1:-test}" = test ]; then want+=("${test_packages[@]}" "${mpi_packages[@]}"); fi

need_cmake() { # says so if the CMake at hand is too old for the presets
  local version
  version=$(cmake --version 2>/dev/null | sed -n '1s/[^0-9]*//p')
  if [ -n "$version" ] && [ "$(printf '%s\n' 3.25 "$version" | sort -V | head -1)" != 3.25 ]; then
    echo "error: Retort needs CMake 3.25 or newer; this is $version (a newer one: pip install cmake)" >&2
    exit 4
  fi
}

missing=()
for package in "${want[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ ${#missing[@]} -eq 0 ]; then
  echo "packages: all ${#want[@]} are installed"
  need_cmake
  exit 0
fi

if ! command -v apt-get >/dev/null; then
  echo "error: this machine has no apt-get. Retort needs, under the names your system uses: ${missing[*]}" >&2
  exit 4
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
    sudo=(sudo -n)
  else
    echo "error: these packages are missing and installing them needs root:" >&2
    echo "  sudo apt-get install ${missing[*]}" >&2
    exit 4
  fi
fi
echo "packages: installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
"${sudo[@]}" apt-get update -qq || echo "warning: apt-get update failed; trying with the lists at hand" >&2
"${sudo[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || {
  echo "error: apt-get could not install: ${missing[*]}" >&2
  exit 4
}
need_cmake
