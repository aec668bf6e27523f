/**
 * The status of an instance, by colour and by word.
 */
import type { Instance } from "./Api.js"

export const Status = ({ status }: Pick<Instance, "status">) => <span class={`status ${status}`}>{status}</span>
