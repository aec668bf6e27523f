/**
 * The reactor's worker: a thread of its own for the loop, which never returns to that of Node.
 */
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads"
import * as Ledger from "./Ledger.js"
import * as Libc from "./Libc.js"
import * as Loop from "./Loop.js"

/** What the worker is started with. */
export interface Data {
  readonly memory: SharedArrayBuffer
  readonly wake: number
}

const isData = (value: unknown): value is Data =>
  typeof value === "object" && value !== null && "memory" in value && "wake" in value

if (parentPort !== null && isData(workerData)) {
  const port = parentPort
  const libc = await Libc.load()
  const next = () => {
    const received: { readonly message: Ledger.Command } | undefined = receiveMessageOnPort(port)
    return received?.message
  }
  const report = (report: Ledger.Report) => port.postMessage(report)
  report({ _tag: "Ready" })
  Loop.run({ libc, ledger: Ledger.make(workerData.memory), wake: workerData.wake, next, report })
}
