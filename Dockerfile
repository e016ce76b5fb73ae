# syntax=docker/dockerfile:1
# An image with one binary. It needs no writable file system: run it with --read-only, --cap-drop=ALL and any numeric
# user.
#
#   docker build -t peerpigeon --build-arg PEERPIGEON_COMMIT="$(git rev-parse --short=12 HEAD)" .
#   docker run --rm --read-only -p 8080:8080 peerpigeon
#
# Both base images can be replaced, for example by a mirror, a digest or your own image: --build-arg BUILD_IMAGE=…
# --build-arg RUNTIME_IMAGE=…. The runtime image needs libgcc and a glibc at least as new as that of the build image. It
# needs no shell.
ARG BUILD_IMAGE=docker.io/library/rust:1.95-slim-trixie
ARG RUNTIME_IMAGE=gcr.io/distroless/cc-debian13:nonroot

FROM ${BUILD_IMAGE} AS build
# The build of jemalloc needs make, and the build of AWS-LC needs a C compiler.
RUN command -v make >/dev/null && command -v cc >/dev/null \
 || { apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make && rm -rf /var/lib/apt/lists/*; }
WORKDIR /build
# The file keeps the names of functions, for backtraces. Line tables, which would be four fifths of it, are removed.
ENV CARGO_PROFILE_RELEASE_DEBUG=0 \
    CARGO_PROFILE_RELEASE_STRIP=debuginfo
# BuildKit and buildah set TARGETARCH. On arm64, jemalloc would use the page size of the builder's kernel. The setting
# for 64 KiB works with all kernels.
ARG TARGETARCH

# Builds only the dependencies, so that this layer is reused until Cargo.lock changes.
COPY Cargo.toml Cargo.lock ./
COPY proto/Cargo.toml proto/
COPY tls/Cargo.toml tls/
COPY shard/Cargo.toml shard/
COPY thread/Cargo.toml thread/
COPY mesh/Cargo.toml mesh/
# Cargo also needs benches, which is a member of the workspace, and the benchmark that proto/Cargo.toml names. Both
# rarely change.
COPY benches benches
COPY proto/benches proto/benches
RUN mkdir -p src proto/src tls/src thread/src shard/src mesh/src \
 && echo 'fn main() {}' >src/main.rs \
 && touch src/lib.rs proto/src/lib.rs tls/src/lib.rs thread/src/lib.rs shard/src/lib.rs mesh/src/lib.rs \
 && { [ "$TARGETARCH" != arm64 ] || export JEMALLOC_SYS_WITH_LG_PAGE=16; } \
 && cargo build --release --locked --bin peerpigeon

# Builds the program. Git keeps no file times, so a checkout may look older than the layer above.
COPY . .
ARG PEERPIGEON_COMMIT=
RUN find src proto tls thread shard mesh -name '*.rs' -exec touch {} + \
 && { [ "$TARGETARCH" != arm64 ] || export JEMALLOC_SYS_WITH_LG_PAGE=16; } \
 && PEERPIGEON_COMMIT="$PEERPIGEON_COMMIT" cargo build --release --locked --bin peerpigeon \
 && target/release/peerpigeon --version

FROM ${RUNTIME_IMAGE}
ARG PEERPIGEON_COMMIT=
ARG PEERPIGEON_VERSION=unreleased
LABEL org.opencontainers.image.title="PeerPigeon" \
      org.opencontainers.image.description="A WebRTC signaling hub" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.source="https://github.com/PeerPigeon/PeerPigeon-Rust" \
      org.opencontainers.image.documentation="https://github.com/PeerPigeon/PeerPigeon-Rust#readme" \
      org.opencontainers.image.revision="${PEERPIGEON_COMMIT}" \
      org.opencontainers.image.version="${PEERPIGEON_VERSION}"
COPY --from=build /build/target/release/peerpigeon /usr/local/bin/peerpigeon
COPY LICENSE /usr/share/licenses/peerpigeon/
# A numeric user lets Kubernetes check that it is not root.
USER 65532:65532
WORKDIR /
# Connections from outside do not reach localhost of a container.
ENV HOST=0.0.0.0 \
    PORT=8080
# PORT, and MESH_PORT and ADMIN_PORT as set in docker-compose.yml and k8s/.
EXPOSE 8080 8081 8082
STOPSIGNAL SIGTERM
# Podman supports this only in images of the Docker format: podman build --format docker.
HEALTHCHECK --interval=10s --timeout=5s --start-period=5s --retries=3 \
  CMD ["/usr/local/bin/peerpigeon", "health"]
ENTRYPOINT ["/usr/local/bin/peerpigeon"]
