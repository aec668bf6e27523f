/**
 * The results of a benchmark run: figures for each way, and their goals.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"

/** The goal of the tunnel's value: a multiple of another way's value, or an absolute value. A maximum where less is better. */
export interface Asked {
  readonly pipes?: number
  readonly direct?: number
  /** Where it was measured. */
  readonly rathole?: number
  readonly value?: number
}

export interface Figure {
  readonly name: string
  readonly unit: string
  readonly better: "more" | "less"
  /** By way; a way that was not measured is missing. */
  readonly values: Readonly<Record<string, number>>
  readonly asked?: Asked | undefined
}

export interface Results {
  readonly cores: number
  readonly node: string
  readonly relay: string
  readonly rounds: number
  /** Milliseconds of one measurement. */
  readonly turn: number
  /** Idle visitors. */
  readonly idle: number
  readonly figures: ReadonlyArray<Figure>
  /** Visitors of the tunnel who were not served. */
  readonly failures: number
}

export const file = Path.join(import.meta.dirname, "results.json")

export const load = (): Results => JSON.parse(Fs.readFileSync(file, "utf8")) as Results

/** The tunnel's value divided by another way's; NaN if that is missing or zero. */
export const ratio = ({ values }: Figure, other: string): number => {
  const { tunnel = Number.NaN, [other]: by = 0 } = values
  return by > 0 ? tunnel / by : Number.NaN
}

/** The ways in the figures, in the order of the tables. */
export const waysOf = (figures: ReadonlyArray<Figure>): ReadonlyArray<string> => [
  ...new Set(["direct", "pipes", "tunnel", ...figures.flatMap(({ values }) => Object.keys(values))])
]

/** Three significant digits, or a dash. */
export const text = (value: number | undefined): string =>
  value === undefined || !Number.isFinite(value) ? "–" : value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)

/** One line per goal: the value reached and the goal. */
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
    if (asked.rathole !== undefined && figure.values["rathole"] !== undefined) {
      add(`${name}, of rathole`, better, ratio(figure, "rathole"), asked.rathole)
    }
    if (asked.value !== undefined) add(`${name} (${unit})`, better, figure.values["tunnel"] ?? Number.NaN, asked.value)
  }
  add("visitors not served", "less", failures, 0)
  return lines
}
