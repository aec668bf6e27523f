/**
 * What a tunnel or a master needs of Node: sockets, certificates, storage, log lines.
 *
 * Start with `NodeHost`, which provides everything a tunnel asks for.
 */
export * as NodeCertificates from "./socket/NodeCertificates.js"
export * as NodeCrypto from "./process/NodeCrypto.js"
export * as NodeHost from "./process/NodeHost.js"
export * as NodeLog from "./process/NodeLog.js"
export * as NodeMaster from "./process/NodeMaster.js"
export * as NodeTransport from "./socket/NodeTransport.js"
export * as NodeSessionStore from "./store/NodeSessionStore.js"
export * as NodeState from "./store/NodeState.js"
