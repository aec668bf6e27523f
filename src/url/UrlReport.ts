/**
 * What a URL means, part by part, defaults included: the output of `check`.
 */
import * as Parameter from "./Parameter.js"
import type { Texts } from "./UrlQuery.js"

/** One part of a URL. */
export interface Row {
  readonly part: string
  readonly value: string
  readonly meaning: string
  readonly isDefault: boolean
}

/** A row for each parameter that has a text or a default. */
export const parameterRows = (role: Parameter.Role, texts: Texts): ReadonlyArray<Row> =>
  Parameter.byRole[role].flatMap(({ meaning, name, ...parameter }) => {
    const value = texts[name] ?? parameter.default
    return value === undefined ? [] : [{ part: name, value, meaning, isDefault: value === parameter.default }]
  })

/** The URL, and its rows as aligned lines. */
export const format = (url: string, rows: ReadonlyArray<Row>): string => {
  const width = (column: "part" | "value") => Math.max(...rows.map((row) => row[column].length)) + 2
  const [part, value] = [width("part"), width("value")]
  const line = (row: Row) =>
    `${row.part.padEnd(part)}${row.value.padEnd(value)}${row.meaning}${row.isDefault ? " (default)" : ""}`
  return [url, "", ...rows.map(line)].join("\n")
}
