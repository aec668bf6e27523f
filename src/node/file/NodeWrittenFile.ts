/**
 * `WrittenFile` with `node:fs`.
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as NodeCrypto from "node:crypto"
import * as Fs from "node:fs"
import * as Net from "node:net"
import * as Path from "node:path"
import * as SystemReason from "../../core/SystemReason.js"
import { WrittenFile, WrittenFileError } from "../../core/WrittenFile.js"
import * as Directory from "./Directory.js"

/** See `WrittenFile`. */
export const write: WrittenFile["Type"]["write"] = (file, text) =>
  Effect.tryPromise({
    try: () => writeTo(Directory.resolve(file), text),
    catch: (cause) => new WrittenFileError({ file, detail: SystemReason.of(cause) })
  })

export const layer: Layer.Layer<WrittenFile> = Layer.succeed(WrittenFile, { write })

// internal

const maxLinks = 40

const writeTo = async (named: string, text: string): Promise<void> => {
  const stats = await ifThere(Fs.promises.stat(named))
  if (stats?.isDirectory() === true) throw new Error("it is a folder")
  if (stats?.isSocket() === true) throw new Error("it is a socket")
  if (stats?.isFIFO() === true) return writeToPipe(named, text)
  if (stats?.isFile() === false) return writeInto(named, text)
  const path = await follow(named)
  return path === undefined ? writeInto(named, text) : replace(path, text)
}

/** The path behind symbolic links; `undefined` when it is an open file of a process, such as /dev/stdout. */
const follow = async (named: string): Promise<string | undefined> => {
  let path = named
  for (let links = 0; links <= maxLinks; links++) {
    const stats = await ifThere(Fs.promises.lstat(path))
    if (stats !== undefined && /^\/(?:proc\/|dev\/(?:fd\/|std))/.test(path)) return undefined
    if (stats?.isSymbolicLink() !== true) return path
    path = Path.resolve(Path.dirname(path), await Fs.promises.readlink(path))
  }
  throw new Error("too many symbolic links")
}

/** Writes a new file beside it and renames that: no reader sees a part of the text. */
const replace = async (path: string, text: string): Promise<void> => {
  Directory.make(Path.dirname(path))
  const temporary = `${path}.${NodeCrypto.randomBytes(6).toString("hex")}`
  try {
    const handle = await Fs.promises.open(temporary, "wx", 0o600)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await Fs.promises.rename(temporary, path)
  } catch (error) {
    await Fs.promises.rm(temporary, { force: true })
    // A file that is mounted by itself, as containers do, cannot be replaced.
    if (SystemReason.codeOf(error) === "EBUSY") return writeInto(path, text)
    throw error
  }
}

/** Not with O_CREAT: what is there is written to, a device for example. */
const writeInto = async (path: string, text: string): Promise<void> => {
  const handle = await Fs.promises.open(path, Fs.constants.O_WRONLY | Fs.constants.O_TRUNC)
  try {
    await handle.writeFile(text)
  } finally {
    await handle.close()
  }
}

/** By a socket of Node: a file would keep a thread while the reader is slow, also when the process ends. */
const writeToPipe = async (path: string, text: string): Promise<void> => {
  const fd = Fs.openSync(path, Fs.constants.O_WRONLY | Fs.constants.O_NONBLOCK)
  const pipe = new Net.Socket({ fd, readable: false, writable: true })
  await new Promise<void>((resolve, reject) => {
    pipe.once("error", reject)
    pipe.end(text, resolve)
  })
  pipe.destroy()
}

const ifThere = async <A>(found: Promise<A>): Promise<A | undefined> => {
  try {
    return await found
  } catch (error) {
    if (SystemReason.codeOf(error) === "ENOENT") return undefined
    throw error
  }
}
