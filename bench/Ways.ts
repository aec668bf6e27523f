/**
 * The ways from a visitor to the target: direct, through two plain Node pipes, through the tunnel.
 */
import * as Path from "node:path"
import process from "node:process"
import * as Selfsigned from "selfsigned"
import { freePort } from "../test/live/command/freePort.js"
import { host } from "./Ask.js"
import * as Program from "./Program.js"
import * as Stage from "./Stage.js"

export interface Way {
  readonly name: string
  /** The port that visitors connect to. */
  readonly port: number
  /** The processes between visitor and target, in order. */
  readonly hops: ReadonlyArray<Program.Program>
}

export interface Options {
  /** TLS 1.3 between the two hops. Defaults to none. */
  readonly secured?: boolean | undefined
  /** Of the hops. Defaults to that of this process. */
  readonly env?: NodeJS.ProcessEnv | undefined
}

export const direct = (target: number): Way => ({ name: "direct", port: target, hops: [] })

const { cert, private: key } = await Selfsigned.generate([{ name: "commonName", value: "bench" }], {
  keyType: "ec",
  curve: "P-256",
  algorithm: "sha256"
})

/** Two processes of `pipe.ts`, which use `stream.pipe`. */
export const pipes = async (target: number, options?: Options): Promise<Way> => {
  const [port, middle] = [await freePort(), await freePort()]
  const env = { ...(options?.env ?? process.env), BENCH_PEM: `${cert}\n${key}` }
  const [near, far] = options?.secured === true ? ["seal", "open"] : ["plain", "plain"]
  const hops = [Stage.start("pipe", [port, middle, near], { env }), Stage.start("pipe", [middle, target, far], { env })]
  return { name: "pipes", port, hops }
}

/** The built command, server and client, started at the same moment with all defaults except `slot`. */
export const tunnel = async (target: number, options?: Options): Promise<Way> => {
  const [port, control] = [await freePort(), await freePort()]
  const query = options?.secured === true ? "&tls=1" : ""
  const urls = [
    `server://bench@${host}:${control}/${host}:${port}?mode=1&slot=0${query}`,
    `client://bench@${host}:${control}/${host}:${target}?mode=2&slot=0${query}`
  ]
  const command = Path.join(import.meta.dirname, "../bin/nodepass.js")
  const env = options?.env ?? process.env
  return { name: "tunnel", port, hops: urls.map((url) => Program.start(process.execPath, [command, url], { env })) }
}

/** Waits until a visitor has been served. Throws with the last output of the hops after 10 s. */
export const served = async (way: Way, visitors: Stage.Visitors): Promise<Way> => {
  const { failed } = await visitors.run({ what: "first", port: way.port })
  if (failed === 0) return way
  stop(way)
  throw new Error(`no visitor was served (${way.hops.map((hop) => hop.lastLine()).join("; ") || "no output"})`)
}

export const stop = (way: Way) => {
  for (const hop of way.hops) Program.stop(hop)
}
