/**
 * How the scripts start other programs: tools out of node_modules, and programs that take over the terminal.
 */
import { spawn } from "node:child_process"
import { readFileSync, realpathSync } from "node:fs"
import { availableParallelism } from "node:os"
import { join } from "node:path"
import { fileURLToPath, pathToFileURL } from "node:url"
import { stripVTControlCharacters } from "node:util"

/** The folder of the repository. */
export const root = fileURLToPath(new URL("..", import.meta.url))

/** A failure that one sentence explains: no stack is printed. */
export class Failure extends Error {}

/**
 * Whether Node was asked for this very script, and it is not just imported.
 *
 * @param {string} module its `import.meta.url`
 */
export const isMain = (module) =>
  process.argv[1] !== undefined && module === pathToFileURL(realpathSync(process.argv[1])).href

/**
 * Runs `body`; a `Failure` ends the process with its one line and exit code 1.
 *
 * @param {() => unknown} body
 */
export const run = async (body) => {
  try {
    await body()
  } catch (error) {
    console.error(error instanceof Failure ? error.message : error)
    process.exitCode = 1
  }
}

/**
 * The command of an installed package, as the file that Node runs; the one command it has, or the one named.
 *
 * @param {string} name of the package
 * @param {string} [command]
 */
export const tool = (name, command) => {
  const folder = join(root, "node_modules", name)
  const { bin } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
  return join(folder, typeof bin === "string" ? bin : (bin[command ?? name] ?? Object.values(bin)[0]))
}

/**
 * The compilers and the linter are Go programs. With fewer collections and threads they take a third less CPU; two of them
 * run at a time.
 */
const go = { GOGC: "400", GOMAXPROCS: String(Math.max(1, availableParallelism() >> 1)) }

/**
 * Runs Node, or another program, to its end and keeps what it prints, without the colours.
 *
 * @param {ReadonlyArray<string>} args
 * @param {string} [program]
 * @returns {Promise<{ readonly ok: boolean, readonly output: string }>}
 */
export const capture = (args, program = process.execPath) =>
  new Promise((resolve, reject) => {
    const child = spawn(program, args, { cwd: root, env: { ...go, ...process.env }, stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    child.stdout.setEncoding("utf8").on("data", (text) => (output += text))
    child.stderr.setEncoding("utf8").on("data", (text) => (output += text))
    child.once("error", reject)
    child.once("close", (code) => resolve({ ok: code === 0, output: stripVTControlCharacters(output) }))
  })

/**
 * Runs Node in this terminal and returns its exit code.
 *
 * Ctrl-C reaches the child by itself, being of the same group; SIGTERM is passed on. Either way its end is waited for.
 *
 * @param {ReadonlyArray<string>} args
 * @returns {Promise<number>}
 */
export const inTerminal = (args) =>
  new Promise((resolve, reject) => {
    const env = process.stdout.isTTY ? process.env : { ...process.env, NO_COLOR: "1" }
    const child = spawn(process.execPath, args, { cwd: root, env, stdio: "inherit" })
    const terminate = () => child.kill("SIGTERM")
    process.on("SIGINT", ignore).on("SIGTERM", terminate)
    child.once("error", reject)
    child.once("close", (code, signal) => {
      process.off("SIGINT", ignore).off("SIGTERM", terminate)
      if (signal !== null && signal !== "SIGINT" && signal !== "SIGTERM")
        console.error(`ended by ${signal}: ${args.join(" ")}`)
      resolve(code ?? (signal === "SIGINT" ? 130 : signal === "SIGTERM" ? 143 : 1))
    })
  })

const ignore = () => {}

/**
 * Runs a TypeScript program of this repository with the arguments of this process, and ends as it ends.
 *
 * @param {string} file path from the root
 */
export const runSource = async (file) => {
  const tsx = pathToFileURL(join(root, "node_modules/tsx/dist/loader.mjs")).href
  process.exitCode = await inTerminal(["--import", tsx, join(root, file), ...process.argv.slice(2)])
}
