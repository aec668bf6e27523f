/**
 * NodePass tunnels for host programs: the layers to embed, the parts a host can replace, and what a tunnel reports.
 *
 * `nodepass-effect/node` has the adapters for Node, `/master` the parts of a master, `/testing` the simulation.
 */
export * as Address from "./core/Address.js"
export * as EventBus from "./core/EventBus.js"
export * as Refusals from "./core/Refusals.js"
export * as TunnelEvent from "./core/TunnelEvent.js"
export * as Master from "./master/Master.js"
export * as MasterClient from "./master/MasterClient.js"
export * as Pool from "./pool/Pool.js"
export * as PoolFactory from "./pool/PoolFactory.js"
export * as PoolPolicy from "./pool/PoolPolicy.js"
export * as RelayFactory from "./relay/RelayFactory.js"
export * as SignalBus from "./signal/SignalBus.js"
export * as SignalBusFactory from "./signal/SignalBusFactory.js"
export * as SignalFeed from "./signal/SignalFeed.js"
export * as Certificates from "./transport/Certificates.js"
export * as Crypto from "./transport/Crypto.js"
export * as Settings from "./transport/Settings.js"
export * as Tls from "./transport/Tls.js"
export * as Transport from "./transport/Transport.js"
export * as Checkpoint from "./tunnel/Checkpoint.js"
export * as SessionStore from "./tunnel/SessionStore.js"
export * as Tunnel from "./tunnel/Tunnel.js"
export * as TunnelUrl from "./url/TunnelUrl.js"
export * as Deflate from "./wire/Deflate.js"
