/**
 * The status of an instance, as a word and a colour.
 */
import type { Instance } from "./Api.js"

export const Status = ({ status }: Pick<Instance, "status">) => <span class={`status ${status}`}>{status}</span>
