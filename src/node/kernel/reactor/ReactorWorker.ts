/**
 * The reactor's worker: a thread of its own for the loop, which never returns to that of Node.
 */
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads"
import * as SharedState from "./SharedState.js"
import * as Libc from "../ffi/Libc.js"
import * as EpollLoop from "./EpollLoop.js"
import * as ReactorProtocol from "./ReactorProtocol.js"
import * as OpenSsl from "../tls/OpenSsl.js"

/** What the worker is started with. */
export interface Data {
  readonly memory: SharedArrayBuffer
  readonly mail: ReactorProtocol.Memory
  /** Descriptors that wake the worker, and its owner. */
  readonly wake: number
  readonly bell: number
}

const isData = (value: unknown): value is Data =>
  typeof value === "object" && value !== null && "memory" in value && "mail" in value && "wake" in value

if (parentPort !== null && isData(workerData)) {
  const port = parentPort
  const { bell, mail, memory, wake } = workerData
  const libc = await Libc.load()
  const openSsl = await OpenSsl.load().catch(() => undefined)
  const ahead = () => {
    const received: { readonly message: ReactorProtocol.Ahead } | undefined = receiveMessageOnPort(port)
    return received?.message
  }
  port.postMessage("Ready")
  const desk = ReactorProtocol.desk(ReactorProtocol.make(mail), { libc, bell, ahead })
  EpollLoop.run({ libc, openSsl, ledger: SharedState.make(memory), wake, desk })
}
