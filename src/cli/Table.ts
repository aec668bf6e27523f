/**
 * Responses of a master's API as text tables. Tunnel keys are masked.
 */
import { type Instance, keyId, type Version } from "../master/Instance.js"
import { masked } from "../url/UrlError.js"

/** The status; of an instance that runs, `serving` or `waiting`. */
export const statusOf = ({ serving, status }: Pick<Instance, "serving" | "status">): string =>
  status === "running" ? (serving ? "serving" : "waiting") : status

export const instances = (instances: ReadonlyArray<Instance>): string =>
  format([
    ["ID", "ALIAS", "STATUS", "VISITORS", "POOL", "RX", "TX", "URL"],
    ...instances
      .filter(({ id }) => id !== keyId)
      .map((one) => [
        one.id,
        one.alias,
        statusOf(one),
        String(one.tcps + one.udps),
        String(one.pool),
        String(one.tcprx + one.udprx),
        String(one.tcptx + one.udptx),
        masked(one.url) + (one.reason === "stopped" || one.reason === "" ? "" : `  (${one.reason})`)
      ])
  ])

/** The current version is marked by `*`. */
export const versions = (versions: ReadonlyArray<Version>): string =>
  format([
    ["VERSION", "TIME", "URL"],
    ...versions.map(({ current, time, url, version }) => [`${version}${current ? " *" : ""}`, time, masked(url)])
  ])

/** A line for each field. Nothing is masked. */
export const fields = (value: object): string =>
  format(
    Object.entries(value).map(([name, field]) => [name, typeof field === "string" ? field : JSON.stringify(field)])
  )

// internal

const format = (rows: ReadonlyArray<ReadonlyArray<string>>): string => {
  const widths = (rows[0] ?? []).map((_, column) => Math.max(...rows.map((row) => row[column]?.length ?? 0)))
  return rows
    .map((row) =>
      row
        .map((cell, at) => cell.padEnd(widths[at] ?? 0))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}
