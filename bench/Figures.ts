/**
 * Results as tables: lines for the terminal, and the block of README.md.
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

/** The block between the marks of README.md. */
export const markdown = ({ cores, failures, figures, idle, node, relay }: Results): string => {
  const columns = waysOf(figures)
  const rows = figures.map((figure) => {
    const cells = columns.map((name) => text(figure.values[name]))
    const unit = figure.unit === "1" ? "" : ` (${figure.unit})`
    return `| ${[`${figure.name}${unit}`, ...cells, text(ratio(figure, "pipes")), text(ratio(figure, "direct"))].join(" | ")} |\n`
  })
  return (
    `![The tunnel compared with two Node pipes](bench/chart.svg)\n\n` +
    `On ${cores} shared cores, Node ${node}, \`NP_RELAY=${relay}\`, load generator and target on the same cores; ${idle} idle visitors. ` +
    `Client and server are two processes, and so are the two pipes; in the TLS rows the connection between the pipes uses TLS 1.3.\n\n` +
    `| ${["", ...columns.map((name) => titles[name] ?? name), "tunnel / pipes", "tunnel / direct"].join(" | ")} |\n` +
    `| --- |${" --: |".repeat(columns.length + 2)}\n` +
    `${rows.join("")}\nVisitors who were not served: ${failures}.\n`
  )
}

const block = /(?<=<!-- figures -->\n)[\s\S]*?(?=<!-- \/figures -->)/

export const fromReadme = (readme: string): string | undefined => block.exec(readme)?.[0]

export const intoReadme = (readme: string, results: Results): string => readme.replace(block, () => markdown(results))
