/**
 * The header: the master's name, its figures and its actions.
 */
import { bytes, duration, rate } from "./Format.js"
import type { Store } from "./Store.js"

export interface Props {
  readonly store: Store
  readonly onCreate: () => void
  readonly onOpen: (dialog: "About" | "Keys") => void
}

export const Header = ({ onCreate, onOpen, store: { signOut, state } }: Props) => {
  const { info, instances, live } = state
  const all = [...instances.values()]
  const sum = (way: "rx" | "tx") => rate(all.reduce((sum, { rate }) => sum + rate[way], 0))
  return (
    <header>
      <div class="title">
        <h1>{info === undefined || info.alias === "" ? "nodepass" : info.alias}</h1>
        <span class={`live ${live ? "yes" : "no"}`} role="status">
          {live ? "live" : "not connected; retrying"}
        </span>
      </div>
      <p class="master">
        {info === undefined
          ? ""
          : `${info.name}, up ${duration(info.uptime)}${info.cpu < 0 ? "" : `, CPU ${info.cpu} %`}, memory ${bytes(info.mem_used)} of ${bytes(info.mem_total)}; ${sum("rx")} in, ${sum("tx")} out`}
      </p>
      <nav aria-label="Master" class="actions">
        <button type="button" class="primary" onClick={onCreate}>
          New instance
        </button>
        <button type="button" onClick={() => onOpen("About")}>
          Master
        </button>
        <a href="docs" class="button">
          API
        </a>
        <button type="button" class="keys" onClick={() => onOpen("Keys")} aria-label="Keyboard shortcuts">
          ?
        </button>
        <button type="button" onClick={signOut}>
          Sign out
        </button>
      </nav>
    </header>
  )
}
