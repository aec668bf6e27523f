/**
 * Folders that the program writes to: where they are, made with their parents, with errors that name what is wrong.
 */
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import * as SystemReason from "../../core/SystemReason.js"

/** The absolute path. Throws when the path is relative and the working folder has been deleted. */
export const resolve = (path: string): string => {
  try {
    return Path.resolve(path)
  } catch {
    throw new Error(`${path} is relative to the working folder, which does not exist any more`)
  }
}

/** The home of the user. Throws when nothing names it. */
export const home = (): string => {
  try {
    return Os.homedir()
  } catch {
    throw new Error(`user ${process.getuid?.() ?? ""} has no home; set HOME, or NP_STATE_DIR or state= to a folder`)
  }
}

/**
 * Makes the folder and its parents, for this user only, if they are missing. Throws when that fails, and when no file can
 * be made in it.
 *
 * Not by `recursive`: where a folder cannot be made although its parent exists, as in /proc, Node 20 never returns.
 */
export const make = (path: string): void => {
  const missing: Array<string> = []
  let at = resolve(path)
  while (!exists(at) && Path.dirname(at) !== at) {
    missing.unshift(at)
    at = Path.dirname(at)
  }
  for (const folder of missing) {
    attempt(`cannot make the folder ${folder}`, () => {
      // Another process may have made it since.
      if (!exists(folder)) Fs.mkdirSync(folder, 0o700)
    })
  }
  const folder = resolve(path)
  if (!Fs.statSync(folder).isDirectory()) throw new Error(`${folder} is not a folder`)
  attempt(`cannot write to the folder ${folder}`, () => Fs.accessSync(folder, Fs.constants.W_OK | Fs.constants.X_OK))
}

// internal

const exists = (path: string): boolean =>
  attempt(`cannot look for the folder ${path}`, () => {
    try {
      return Fs.statSync(path, { throwIfNoEntry: false }) !== undefined
    } catch (error) {
      if (SystemReason.codeOf(error) === "ENOTDIR") return false
      throw error
    }
  })

const attempt = <A>(what: string, evaluate: () => A): A => {
  try {
    return evaluate()
  } catch (error) {
    throw new Error(`${what}: ${reasonOf(error)}`, { cause: error })
  }
}

/** The folder's parent exists: what the system does not find is a place for it, as in /proc. */
const reasonOf = (error: unknown): string =>
  SystemReason.codeOf(error) === "ENOENT" ? "this file system cannot hold it" : SystemReason.of(error)
