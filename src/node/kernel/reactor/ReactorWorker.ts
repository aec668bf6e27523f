/**
 * The entry of a relay thread. It runs the epoll loop and never returns to Node's own loop until it is stopped.
 */
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads"
import * as SharedState from "./SharedState.js"
import * as Libc from "../ffi/Libc.js"
import * as EpollLoop from "./EpollLoop.js"
import * as ReactorProtocol from "./ReactorProtocol.js"
import type { Attachment } from "./ReactorRecords.js"
import * as OpenSsl from "../tls/OpenSsl.js"

/** What the owner starts the worker with. */
export interface Data {
  readonly sharedState: SharedArrayBuffer
  readonly protocol: ReactorProtocol.Memory
  /** Eventfds, owned by the owner: the first wakes the worker, the second wakes the owner. */
  readonly workerWake: number
  readonly ownerWake: number
}

const isData = (value: unknown): value is Data =>
  typeof value === "object" &&
  value !== null &&
  "sharedState" in value &&
  "protocol" in value &&
  "workerWake" in value &&
  "ownerWake" in value

if (parentPort !== null && isData(workerData)) {
  const port = parentPort
  const { ownerWake, protocol, sharedState, workerWake } = workerData
  const libc = await Libc.load()
  const openSsl = await OpenSsl.load().catch(() => undefined)
  const receiveAttachment = () => {
    const received: { readonly message: Attachment } | undefined = receiveMessageOnPort(port)
    return received?.message
  }
  const state = SharedState.make(sharedState)
  const end = ReactorProtocol.workerEnd(ReactorProtocol.make(protocol), { libc, ownerWake, receiveAttachment })
  port.postMessage("Ready")
  try {
    EpollLoop.run({ libc, openSsl, sharedState: state, workerWake, end })
  } finally {
    Atomics.store(state.ended, 0, 1)
    Atomics.notify(state.ended, 0)
  }
}
