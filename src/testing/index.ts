/**
 * Simulated hosts, networks and time, for tests of programs that embed a tunnel.
 *
 * Start with `Simulation.run`, which runs an effect in virtual time, the same for the same seed.
 */
export * as SimCertificates from "./SimCertificates.js"
export * as SimCrypto from "./SimCrypto.js"
export * as SimHost from "./SimHost.js"
export * as SimNetwork from "./SimNetwork.js"
export * as Simulation from "./Simulation.js"
