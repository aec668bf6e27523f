/**
 * The status of an instance, as a word and a colour.
 */
import type { Instance } from "./Api.js"

/** `running` is divided: an instance that runs is `serving` visitors, or `waiting` until it can. */
export type Shown = "serving" | "waiting" | "stopped" | "error"

export const statuses = ["serving", "waiting", "stopped", "error"] as const

export const statusOf = ({ serving, status }: Pick<Instance, "serving" | "status">): Shown =>
  status === "running" ? (serving ? "serving" : "waiting") : status === "error" ? "error" : "stopped"

export const Status = ({ instance }: { readonly instance: Pick<Instance, "serving" | "status"> }) => {
  const status = statusOf(instance)
  return <span class={`status ${status}`}>{status}</span>
}
