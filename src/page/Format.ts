/**
 * Numbers and texts for display.
 */
import type { Instance } from "./Api.js"

const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"] as const

/** `1536` is `1.5 KiB`. */
export const bytes = (count: number): string => {
  const power = count < 1 ? 0 : Math.min(Math.floor(Math.log2(count) / 10), units.length - 1)
  const value = count / 1024 ** power
  return `${value >= 100 || power === 0 ? Math.round(value) : value.toFixed(1)} ${units[power]}`
}

export const rate = (bytesPerSecond: number): string => `${bytes(bytesPerSecond)}/s`

/** Seconds as their two largest units, zeros left out. */
export const duration = (seconds: number): string => {
  const parts = [
    [Math.floor(seconds / 86_400), "d"],
    [Math.floor(seconds / 3600) % 24, "h"],
    [Math.floor(seconds / 60) % 60, "min"],
    [Math.floor(seconds) % 60, "s"]
  ] as const
  const first = parts.findIndex(([count]) => count > 0)
  return first === -1
    ? "0 s"
    : parts
        .slice(first, first + 2)
        .filter(([count]) => count > 0)
        .map(([count, unit]) => `${count} ${unit}`)
        .join(" ")
}

/** The URL without its key. */
export const masked = (url: string): string => url.replace(/^([^:/?#@]*:\/\/)[^/?#]*@/, "$1***@")

/** The tunnel and target addresses of a URL. */
export const endsOf = (url: string): string =>
  /^[^:]*:\/\/([^?#]*)/
    .exec(masked(url))?.[1]
    ?.replace(/^\*\*\*@/, "")
    .replace("/", " → ") ?? url

export const nameOf = ({ alias, id }: Instance): string => (alias === "" ? id : alias)

/** Whether every word of the search occurs in the instance. */
export const matches = ({ alias, config, error, id, meta, status, type, url }: Instance, words: string): boolean => {
  const tags = Object.entries(meta.tags).map(([name, value]) => `${name}=${value}`)
  const text = [alias, id, status, type, masked(url), masked(config), error, ...tags].join(" ").toLowerCase()
  return words
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word))
}
