/**
 * The system calls of Linux that this process makes without Node. They are loaded once, where the platform has them.
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { existsSync } from "node:fs"
import * as Path from "node:path"
import process from "node:process"
import * as Libc from "./ffi/Libc.js"
import * as DatagramBatch from "./ffi/DatagramBatch.js"
import * as OpenSsl from "./tls/OpenSsl.js"
import * as Package from "../Package.js"
import * as Poller from "./Poller.js"
import * as ReceiveBuffers from "./ReceiveBuffers.js"
import * as Sockets from "./ffi/Sockets.js"
import * as Uv from "./ffi/Uv.js"

export interface Kernel {
  readonly libc: Libc.Libc
  readonly sockets: Sockets.Sockets
  readonly datagramBatch: DatagramBatch.DatagramBatch
  /** `undefined` when Node has no OpenSSL that can be called. */
  readonly openSsl: OpenSsl.OpenSsl | undefined
  readonly poller: Poller.Poller
  readonly receiveBuffers: ReceiveBuffers.ReceiveBuffers
  /** The file of the relay threads: `ReactorWorker.js`. */
  readonly worker: string
}

/** This process cannot make the system calls. */
export class KernelUnavailable extends Schema.TaggedError<KernelUnavailable>()("KernelUnavailable", {
  reason: Schema.Literal("NotLinux", "NoWorker", "NoKoffi"),
  cause: Schema.optional(Schema.Defect)
}) {
  override get message(): string {
    return {
      NotLinux: `this is ${process.platform} on ${process.arch}, not Linux on x64 or arm64`,
      NoWorker: "the worker file of nodepass-effect is missing",
      NoKoffi: "koffi cannot be loaded"
    }[this.reason]
  }
}

/** The kernel of this process. */
export const kernel: Effect.Effect<Kernel, KernelUnavailable> = Effect.gen(function* () {
  if (process.platform !== "linux" || (process.arch !== "x64" && process.arch !== "arm64")) {
    return yield* new KernelUnavailable({ reason: "NotLinux" })
  }
  const worker = Path.join(Package.folder, "dist/node/kernel/reactor/ReactorWorker.js")
  if (!existsSync(worker)) return yield* new KernelUnavailable({ reason: "NoWorker" })
  const calls = yield* Effect.tryPromise({
    try: () => (loading ??= load()),
    catch: (cause) => new KernelUnavailable({ reason: "NoKoffi", cause })
  })
  return { ...calls, worker }
})

// internal

let loading: ReturnType<typeof load> | undefined
const load = async () => {
  const [libc, sockets, datagramBatch, openSsl] = await Promise.all([
    Libc.load(),
    Sockets.load(),
    DatagramBatch.load(),
    OpenSsl.load().catch(() => undefined)
  ])
  const uv = await Uv.load(libc)
  const receiveBuffers = ReceiveBuffers.make(sockets)
  return { libc, sockets, datagramBatch, openSsl, poller: Poller.make(libc, uv), receiveBuffers }
}
