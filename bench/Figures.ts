/**
 * Results as tables: lines for the terminal, and the blocks of README.md, which is short, and of docs/performance.md.
 */
import { type Figure, type Results, ratio, text, waysOf } from "./Results.js"

const titles: Readonly<Record<string, string>> = { pipes: "two Node pipes" }

/** The terminal's line above figures of these ways. */
export const head = (columns: ReadonlyArray<string>): string =>
  `${"".padEnd(56)}${columns.map((name) => name.padStart(9)).join("")}${"/ pipes".padStart(10)}${"/ direct".padStart(10)}`

/** The terminal's line of a figure. */
export const line = (figure: Figure, columns: ReadonlyArray<string>): string => {
  const cells = columns.map((name) => text(figure.values[name]).padStart(9))
  const ratios = ["pipes", "direct"].map((other) => text(ratio(figure, other)).padStart(10))
  return `${figure.name.padEnd(50)}${figure.unit.padEnd(6)}${cells.join("")}${ratios.join("")}`
}

/** The figures of README.md. */
const chosen: ReadonlySet<string> = new Set([
  "throughput, 1 stream to the target",
  "CPU of both hops, 1 stream to the target",
  "TLS, throughput, 1 stream to the target",
  "new visitors, 32 at a time",
  "CPU of both hops a visitor, 32 at a time",
  "1000 visitors at once, to the last",
  "64-byte round trip, idle, p50",
  "64-byte round trip, beside bulk, p50",
  "UDP, 1200-byte datagrams echoed",
  "memory of an idle visitor, first hop"
])

/** The block between the marks of a page: some figures and a chart for README.md, all of them for docs/performance.md. */
export const markdown = (
  { cores, failures, figures: all, idle, node, relay }: Results,
  page: "README" | "performance"
): string => {
  const figures = page === "README" ? all.filter(({ name }) => chosen.has(name)) : all
  const columns = waysOf(figures)
  const rows = figures.map((figure) => {
    const cells = columns.map((name) => text(figure.values[name]))
    const unit = figure.unit === "1" ? "" : ` (${figure.unit})`
    return `| ${[`${figure.name}${unit}`, ...cells, text(ratio(figure, "pipes")), text(ratio(figure, "direct"))].join(" | ")} |\n`
  })
  return (
    (page === "README" ? `![The tunnel compared with two Node pipes](bench/chart.svg)\n\n` : "") +
    `On ${cores} shared cores, Node ${node}, \`NP_RELAY=${relay}\`, load generator and target on the same cores; ${idle} idle visitors. ` +
    `Client and server are two processes, and so are the two pipes; in the TLS rows the connection between the pipes uses TLS 1.3.\n\n` +
    `| ${["", ...columns.map((name) => titles[name] ?? name), "tunnel / pipes", "tunnel / direct"].join(" | ")} |\n` +
    `| --- |${" --: |".repeat(columns.length + 2)}\n` +
    `${rows.join("")}\nVisitors who were not served: ${failures}.\n`
  )
}

const block = /(?<=<!-- figures -->\n)[\s\S]*?(?=<!-- \/figures -->)/

export const fromPage = (text: string): string | undefined => block.exec(text)?.[0]

export const intoPage = (text: string, results: Results, page: "README" | "performance"): string =>
  text.replace(block, () => markdown(results, page))
