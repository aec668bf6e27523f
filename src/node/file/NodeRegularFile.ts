/**
 * `RegularFile` with `node:fs`.
 *
 * A system call on a file takes a thread of libuv's pool, and keeps it while the file system does not answer. So at most two
 * files are read at a time, and one file by one thread only: a path that never answers costs one thread.
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import * as Fs from "node:fs"
import { type Content, RegularFile, RegularFileError } from "../../core/RegularFile.js"

/** See `RegularFile`. */
export const read: RegularFile["Type"]["read"] = (file, { deadline = defaultDeadline, limit = defaultLimit } = {}) =>
  Effect.suspend(() => {
    let isGivenUp = false
    const attempt = Effect.tryPromise({
      try: () => readAll(file, limit, () => isGivenUp),
      catch: (cause) => new RegularFileError({ file, ...failureOf(cause) })
    })
    return whenFree(file, threads.withPermits(1)(Effect.uninterruptible(attempt))).pipe(
      // The thread is free only when the call returns. So the read goes on without a caller that has given up.
      Effect.disconnect,
      Effect.timeoutFail({
        duration: deadline,
        onTimeout: () =>
          new RegularFileError({ file, reason: "TimedOut", detail: `no answer within ${Duration.format(deadline)}` })
      }),
      Effect.ensuring(Effect.sync(() => (isGivenUp = true)))
    )
  })

export const layer: Layer.Layer<RegularFile> = Layer.succeed(RegularFile, { read })

// internal

const defaultLimit = 1_048_576
const defaultDeadline = Duration.seconds(10)
const maxThreads = 2
const chunkSize = 65_536

const threads = Effect.unsafeMakeSemaphore(maxThreads)
/** The files that are being read, or wait for a thread. */
const busy = new Map<string, Deferred.Deferred<void>>()

/** Runs the read after other reads of the file. They are not shared: the file may have changed since they started. */
const whenFree = <A, E>(file: string, self: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.suspend(() => {
    const other = busy.get(file)
    if (other !== undefined) return Effect.zipRight(Deferred.await(other), whenFree(file, self))
    const done = Deferred.unsafeMake<void>(FiberId.none)
    busy.set(file, done)
    return Effect.ensuring(
      self,
      Effect.suspend(() => {
        busy.delete(file)
        return Deferred.succeed(done, undefined)
      })
    )
  })

/** Throws a `Refused` for what is not a regular file or is too large. */
const readAll = async (file: string, limit: number, isGivenUp: () => boolean): Promise<Content> => {
  // Before it is opened: opening a device can have effects, such as rewinding a tape.
  refuseOthers(await Fs.promises.stat(file))
  // Without O_NONBLOCK, opening a pipe waits for a writer. libuv adds O_CLOEXEC.
  const handle = await Fs.promises.open(file, Fs.constants.O_RDONLY | (Fs.constants.O_NONBLOCK ?? 0))
  try {
    const stats = await handle.stat()
    // Once more: another file may have the name since.
    refuseOthers(stats)
    const chunks: Array<Buffer> = []
    let size = stats.size
    if (size <= limit) {
      // Up to the end, not to `stats.size`: a file in /proc has size 0.
      size = 0
      while (size <= limit && !isGivenUp()) {
        const { buffer, bytesRead } = await handle.read(Buffer.alloc(chunkSize))
        if (bytesRead === 0) break
        chunks.push(buffer.subarray(0, bytesRead))
        size += bytesRead
      }
    }
    if (size > limit) throw new Refused("TooLarge", `it has more than ${limit} bytes`)
    return { bytes: new Uint8Array(Buffer.concat(chunks)), mode: stats.mode & 0o777 }
  } finally {
    await handle.close()
  }
}

class Refused extends Error {
  readonly reason: RegularFileError["reason"]
  constructor(reason: RegularFileError["reason"], detail: string) {
    super(detail)
    this.reason = reason
  }
}

const refuseOthers = (stats: Fs.Stats): void => {
  if (stats.isFile()) return
  const kind = stats.isDirectory() ? "folder" : stats.isFIFO() ? "pipe" : stats.isSocket() ? "socket" : "device"
  throw new Refused("NotRegular", `it is a ${kind}`)
}

const failureOf = (cause: unknown): Pick<RegularFileError, "detail" | "reason"> => {
  if (cause instanceof Refused) return { reason: cause.reason, detail: cause.message }
  const code = Predicate.hasProperty(cause, "code") ? String(cause.code) : ""
  const [reason, detail] = failures.get(code) ?? (["Failed", code || "failed"] as const)
  return { reason, detail }
}

const failures: ReadonlyMap<string, readonly [RegularFileError["reason"], string]> = new Map([
  ["ENOENT", ["NotFound", "no such file"]],
  ["ENOTDIR", ["NotFound", "no such file"]],
  ["EACCES", ["Forbidden", "permission denied"]],
  ["EPERM", ["Forbidden", "permission denied"]],
  ["ENXIO", ["NotRegular", "it is a pipe, a socket or a device"]],
  // A file of /proc or /sys that waits for events.
  ["EAGAIN", ["NotRegular", "it has no content yet"]],
  ["ELOOP", ["Failed", "too many symbolic links"]],
  ["EMFILE", ["Failed", "out of file descriptors"]],
  ["ENFILE", ["Failed", "out of file descriptors"]]
])
