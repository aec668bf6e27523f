/**
 * A master for host programs: many tunnels in one process, and the HTTP API over them.
 *
 * Start with `Master`; `MasterServer` answers its API, `MasterClient` calls it.
 */
export * as MasterUrl from "../url/MasterUrl.js"
export * as ApiErrors from "./ApiErrors.js"
export * as ApiKey from "./ApiKey.js"
export * as ApiPayloads from "./ApiPayloads.js"
export * as HostFigures from "./HostFigures.js"
export * as Instance from "./Instance.js"
export * as InstanceStore from "./InstanceStore.js"
export * as Journal from "./Journal.js"
export * as Master from "./Master.js"
export * as MasterApi from "./MasterApi.js"
export * as MasterClient from "./MasterClient.js"
export * as MasterServer from "./MasterServer.js"
export * as Metrics from "./Metrics.js"
export * as Page from "./Page.js"
