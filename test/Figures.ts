/**
 * What README.md says was measured, made from what `npm run bench` wrote down.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"

interface Results {
  readonly cores: number
  readonly node: string
  readonly failures: number
  readonly listening: number
  readonly firstVisitor: number
  readonly figures: ReadonlyArray<{
    readonly name: string
    readonly unit: string
    readonly values: Readonly<Record<"direct" | "pipes" | "tunnel", number>>
  }>
  readonly cost: Readonly<Record<"server" | "client", { readonly rssMiB: number; readonly descriptors: number }>>
}

export const figures = (): string => {
  const text = Fs.readFileSync(Path.join(import.meta.dirname, "../bench/results.json"), "utf8")
  const results = JSON.parse(text) as Results
  const rows = results.figures.map(({ name, unit, values: { direct, pipes, tunnel } }) => {
    const cells = [direct, pipes, tunnel].map((value) => value.toFixed(value < 100 ? 1 : 0))
    return `| ${name} (${unit}) | ${cells.join(" | ")} | ${(tunnel / pipes).toFixed(2)} | ${(tunnel / direct).toFixed(2)} |\n`
  })
  const { client, server } = results.cost
  return (
    `On ${results.cores} shared cores, Node ${results.node}, load and target on the same cores; the two sides are two processes, and so are the two pipes.\n\n` +
    "| | direct | two Node pipes | tunnel | tunnel / pipes | tunnel / direct |\n| --- | --: | --: | --: | --: | --: |\n" +
    rows.join("") +
    `\nVisitors who were not served: ${results.failures}. Start to listening: ${results.listening.toFixed(0)} ms. Idle, with 64 warm connections: ` +
    `${server.rssMiB.toFixed(0)} MiB and ${server.descriptors} descriptors on the server, ${client.rssMiB.toFixed(0)} MiB and ${client.descriptors} on the client.\n`
  )
}
