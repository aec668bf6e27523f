/**
 * The dependencies, as package-lock.json names them. Imports nothing but Node, so that it works on a fresh clone.
 */
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { Failure, isMain, root, run } from "./tool.js"

const oldest = 20

/** Installs what is missing; a quick look when nothing is. Throws a `Failure` when Node is too old or npm fails. */
export const install = () => {
  if (Number.parseInt(process.versions.node, 10) < oldest) {
    throw new Failure(`nodepass-effect needs Node ${oldest} or newer; this is Node ${process.versions.node}.`)
  }
  if (isInstalled()) return
  console.log("Installing the dependencies (npm ci) ...")
  fill(root, [])
}

/**
 * Installs the packages of a folder's lock file. Runs none of their install scripts.
 *
 * @param {string} folder
 * @param {ReadonlyArray<string>} options further ones for npm
 */
export const fill = (folder, options) => {
  const flags = ["--ignore-scripts", "--include=dev", "--include=optional", "--no-audit", "--no-fund"]
  const { status, error, stderr } = npm(folder, ["ci", ...flags, ...options])
  if (status !== 0) throw new Failure(`npm ci failed: ${error?.message ?? reason(stderr)}`)
}

/** Whether node_modules holds every package of the lock. npm writes its own lock there last, after the packages. */
const isInstalled = () => {
  const wanted = packages("package-lock.json")
  const present = packages("node_modules/.package-lock.json")
  return (
    wanted !== undefined &&
    present !== undefined &&
    Object.entries(wanted).every(([path, { optional, version }]) =>
      path === "" || (optional === true && present[path] === undefined) ? true : present[path]?.version === version
    )
  )
}

/**
 * @param {string} lock
 * @returns {Record<string, { readonly version: string, readonly optional?: boolean }> | undefined}
 */
const packages = (lock) => {
  try {
    return JSON.parse(readFileSync(join(root, lock), "utf8")).packages
  } catch {
    return undefined
  }
}

/**
 * The npm that started this process, or the one on PATH.
 *
 * @param {string} folder
 * @param {ReadonlyArray<string>} args
 */
const npm = (folder, args) => {
  const cli = process.env["npm_execpath"] ?? ""
  const [command, ...before] = cli.endsWith("npm-cli.js") ? [process.execPath, cli] : ["npm"]
  return spawnSync(command, [...before, ...args], {
    cwd: folder,
    encoding: "utf8",
    stdio: ["ignore", "ignore", "pipe"],
    shell: process.platform === "win32" && command === "npm"
  })
}

/**
 * The line of npm's error output that explains the failure.
 *
 * @param {string} stderr
 */
const reason = (stderr) =>
  stderr
    .split("\n")
    .filter((line) => /^npm (error|ERR!) /.test(line))
    .map((line) => line.replace(/^npm \S+ /, ""))
    .filter((line) => !/^(errno|syscall|A complete log|network( |$)|\s|$)/.test(line))
    .slice(0, 2)
    .join(": ") || "run it by hand to see why"

if (isMain(import.meta.url)) await run(install)
