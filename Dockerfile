# The images of Sluice, one per target: operator, agent (with the CNI plugin in it) and cli.
#
#   docker build --target operator --tag REGISTRY/sluice-operator:TAG .
#   docker build --target agent    --tag REGISTRY/sluice-agent:TAG .
#   docker build --target cli      --tag REGISTRY/sluice-cli:TAG .
#
# The build stage does what a developer does; the test cluster packs the same programs into images of its own.

FROM rust:1.95-bookworm AS build
WORKDIR /sluice
COPY . .
RUN cargo xtask package

FROM debian:bookworm-slim AS base

FROM base AS operator
COPY --from=build /sluice/target/package/sluice-operator /
# The chart's securityContext says the same.
USER 65532:65532
ENTRYPOINT ["/sluice-operator"]

FROM base AS agent
COPY --from=build /sluice/target/package/sluice-agent /sluice/target/package/sluice-cni /
ENTRYPOINT ["/sluice-agent"]

FROM base AS cli
COPY --from=build /sluice/target/package/sluice /
ENTRYPOINT ["/sluice"]
