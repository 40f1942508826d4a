# metald in a container, for development and for the DaemonSet in deploy/metald/kubernetes:
#
#   docker build -t metald:latest .
#   docker run -d --name metald --privileged --network host -v /dev/kvm:/dev/kvm \
#     -v /srv/jailer:/srv/jailer -v /opt/metald:/opt/metald -e UNKEY_METALD_PORT=8080 metald:latest
#
# VMs end with the container unless it shares the host's processes and control groups (docs/layers/vm.md, "In containers").
# Firecracker is in no distribution: mount it and its jailer to /usr/local/bin, or VMs run under QEMU.

ARG RUST=docker.io/library/rust:1.95-slim-bookworm
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${RUST} AS build
WORKDIR /source
COPY . .
RUN cargo build --release --locked --target-dir /target --package app --package cairn-keeper \
 && mkdir -p /out \
 && cp /target/release/cairn /target/release/cairn-keeper /out/

FROM ${BASE}
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates iproute2 nftables qemu-system-x86 tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --system --gid 976 metald \
 && useradd --system --uid 977 --gid metald --home-dir /opt/metald --no-create-home --shell /usr/sbin/nologin metald \
 && install -d -m 0755 /etc/metald /run/netns /srv/jailer /opt/metald/assets /opt/metald/data /opt/metald/logs
COPY --from=build /out/cairn /usr/local/bin/cairn
COPY --from=build /out/cairn /usr/local/bin/metald
COPY --from=build /out/cairn-keeper /usr/local/libexec/cairn/cairn-keeper

# What the guide's `docker run` mounts is /opt/metald, so that is where everything lies that has to stay.
ENV UNKEY_METALD_DATA_DIR=/opt/metald/data \
    UNKEY_METALD_LOG_DIR=/opt/metald/logs \
    UNKEY_METALD_OTEL_PROMETHEUS_INTERFACE=0.0.0.0

EXPOSE 8080 9464
# The first process takes over keepers whose daemon ended, and has to collect them.
ENTRYPOINT ["/usr/bin/tini", "-s", "--", "/usr/local/bin/metald"]
