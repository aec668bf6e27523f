/**
 * The reactor's worker: a thread of its own for the loop, which never returns to that of Node.
 */
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads"
import * as Ledger from "./Ledger.js"
import * as Libc from "./Libc.js"
import * as Loop from "./Loop.js"
import * as Mail from "./Mail.js"
import * as OpenSsl from "./OpenSsl.js"

/** What the worker is started with. */
export interface Data {
  readonly memory: SharedArrayBuffer
  readonly mail: Mail.Memory
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
    const received: { readonly message: Mail.Ahead } | undefined = receiveMessageOnPort(port)
    return received?.message
  }
  port.postMessage("Ready")
  const desk = Mail.desk(Mail.make(mail), { libc, bell, ahead })
  Loop.run({ libc, openSsl, ledger: Ledger.make(memory), wake, desk })
}
