# falaj in an image: `docker build -t falaj:0.1.0 .`
# The first build takes as long as one from source (DataFusion); the caches make the next ones short.

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# A cache mount is no part of the image, so the binary is copied out of it.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/target \
    cargo build --release --locked --package falaj --bin falaj --target-dir /target \
    && install -D /target/release/falaj /out/usr/local/bin/falaj \
    && install -d --mode 0700 --owner 10001 --group 10001 /out/var/lib/falaj \
    && install -D --mode 0644 /etc/ssl/certs/ca-certificates.crt /out/etc/ssl/certs/ca-certificates.crt

# The same Debian as above: glibc, libgcc and libstdc++ of the binary, bash for the health check.
FROM debian:bookworm-slim
# Authorities for https sources come from the image above, so nothing is installed here.
COPY --from=build /out/ /
# A number: orchestrators can see that it is not root.
USER 10001:10001
# Where each pipeline has its data directory, falaj/NAME.
ENV XDG_DATA_HOME=/var/lib
VOLUME ["/var/lib/falaj"]
EXPOSE 8050
# Alive, not ready: a store that is down, or another falaj that is active, is no reason to start it again.
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
    CMD ["/bin/bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/8050 && printf 'GET /healthz HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && read -r -t 4 _ status _ <&3 && [ \"$status\" = 200 ]"]
ENTRYPOINT ["/usr/local/bin/falaj"]
# The page listens inside the container alone; who publishes it says so (`--listen 0.0.0.0:8050 --insecure`).
CMD ["run", "/etc/falaj/falaj.toml"]
