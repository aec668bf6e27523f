/**
 * The Node adapters of a tunnel and of a master: sockets, certificates, stores, log output.
 *
 * Start with `NodeHost`, which provides everything that a tunnel needs except its settings.
 */
export * as NodeCertificates from "./socket/NodeCertificates.js"
export * as NodeCrypto from "./process/NodeCrypto.js"
export * as NodeHost from "./process/NodeHost.js"
export * as NodeLog from "./process/NodeLog.js"
export * as NodeMaster from "./process/NodeMaster.js"
export * as NodeTransport from "./socket/NodeTransport.js"
export * as NodeSessionStore from "./store/NodeSessionStore.js"
export * as NodeBackup from "./store/NodeBackup.js"
export * as NodeState from "./store/NodeState.js"
