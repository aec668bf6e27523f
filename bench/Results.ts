/**
 * What a run of the benchmark wrote down: figures, each of several ways, and what they are asked to be.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"

/** What the tunnel's value is held to: this many times that of another way, or this much. At most it when less is better. */
export interface Asked {
  readonly pipes?: number
  readonly direct?: number
  readonly value?: number
}

export interface Figure {
  readonly name: string
  readonly unit: string
  readonly better: "more" | "less"
  /** By the name of the way; one that was not measured is missing. */
  readonly values: Readonly<Record<string, number>>
  readonly asked?: Asked | undefined
}

export interface Results {
  readonly cores: number
  readonly node: string
  readonly relay: string
  readonly rounds: number
  /** Milliseconds that are counted of each turn. */
  readonly turn: number
  /** Visitors who sat idle. */
  readonly idle: number
  readonly figures: ReadonlyArray<Figure>
  /** Visitors of the tunnel who were not served. */
  readonly failures: number
}

export const file = Path.join(import.meta.dirname, "results.json")

export const load = (): Results => JSON.parse(Fs.readFileSync(file, "utf8")) as Results

/** How many times the other way's value the tunnel's is; not a number when the other has none above zero. */
export const ratio = ({ values }: Figure, other: string): number => {
  const { tunnel = Number.NaN, [other]: by = 0 } = values
  return by > 0 ? tunnel / by : Number.NaN
}

/** The ways that figures tell of, in the order of the tables. */
export const waysOf = (figures: ReadonlyArray<Figure>): ReadonlyArray<string> => [
  ...new Set(["direct", "pipes", "tunnel", ...figures.flatMap(({ values }) => Object.keys(values))])
]

/** Three digits that count, or a dash. */
export const text = (value: number | undefined): string =>
  value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)

/** One line for each thing asked: what was reached, and what was asked. */
export const goals = ({ failures, figures }: Pick<Results, "figures" | "failures">): ReadonlyArray<string> => {
  const lines: Array<string> = []
  const add = (name: string, better: Figure["better"], reached: number, asked: number) => {
    const met = better === "more" ? reached >= asked : reached <= asked
    const sign = better === "more" ? "≥" : "≤"
    lines.push(`${met ? "  " : "! "}${name.padEnd(66)}${text(reached).padStart(7)} / ${sign} ${asked}`)
  }
  for (const figure of figures) {
    const { asked = {}, better, name, unit } = figure
    if (asked.pipes !== undefined) add(`${name}, of two pipes`, better, ratio(figure, "pipes"), asked.pipes)
    if (asked.direct !== undefined) add(`${name}, of direct`, better, ratio(figure, "direct"), asked.direct)
    if (asked.value !== undefined) add(`${name} (${unit})`, better, figure.values["tunnel"] ?? Number.NaN, asked.value)
  }
  add("visitors not served", "less", failures, 0)
  return lines
}
