/**
 * The list of instances: status and figures, a text search, arrow keys to move.
 */
import type { RefObject } from "preact"
import { useMemo, useState } from "preact/hooks"
import type { Instance } from "./Api.js"
import { bytes, endsOf, matches, nameOf, rate } from "./Format.js"
import { linkTo } from "./Route.js"
import { Status, statuses, statusOf } from "./Status.js"
import type { Shown, State } from "./State.js"

export interface Props {
  readonly state: State
  /** The id of the selected instance. */
  readonly selected: string | undefined
  /** The search field. */
  readonly search: RefObject<HTMLInputElement | null>
  readonly onSwitch: (instance: Instance) => void
  readonly onCreate: () => void
}

type Choice = (typeof statuses)[number] | "all"

export const Overview = ({ onCreate, onSwitch, search, selected, state }: Props) => {
  const [words, setWords] = useState("")
  const [choice, setChoice] = useState<Choice>("all")
  const all = useMemo(() => [...state.instances.values()], [state.instances])
  const shown = all.filter(
    ({ instance }) =>
      (choice === "all" || statusOf(instance) === choice) && (words === "" || matches(instance, words.trim()))
  )
  const count = (choice: Choice) =>
    choice === "all" ? all.length : all.filter(({ instance }) => statusOf(instance) === choice).length
  return (
    <section class="overview" aria-labelledby="overview-title">
      <div class="bar">
        <h2 id="overview-title">Instances</h2>
        <input
          ref={search}
          type="search"
          placeholder="Search ( / )"
          aria-label="Search instances by name, id, address or tag"
          value={words}
          onInput={({ currentTarget }) => setWords(currentTarget.value)}
        />
        <div class="choices" role="group" aria-label="Status">
          {(["all", ...statuses] as const).map((one) => (
            <button key={one} type="button" aria-pressed={choice === one} onClick={() => setChoice(one)}>
              {one} <span class="count">{count(one)}</span>
            </button>
          ))}
        </div>
      </div>
      {shown.length > 0 ? (
        <Table shown={shown} selected={selected} onSwitch={onSwitch} />
      ) : (
        <p class="empty">
          {!state.loaded ? (
            "Loading instances…"
          ) : all.length > 0 ? (
            "No instance matches."
          ) : (
            <>
              No instances yet.{" "}
              <button type="button" class="primary" onClick={onCreate}>
                Create the first one
              </button>
            </>
          )}
        </p>
      )}
    </section>
  )
}

// internal

interface TableProps extends Pick<Props, "onSwitch" | "selected"> {
  readonly shown: ReadonlyArray<Shown>
}

const columns = ["Instance", "Status", "Visitors", "In", "Out", "Pool", "Round trip", ""] as const

/** Explicit roles, because the narrow layout does not display rows as table rows. */
const Table = ({ onSwitch, selected, shown }: TableProps) => (
  <table class="instances" role="table" onKeyDown={moveFocus}>
    <thead role="rowgroup">
      <tr role="row">
        {columns.map((column) => (
          <th key={column} role="columnheader" scope="col">
            {column === "" ? <span class="unseen">Start or stop</span> : column}
          </th>
        ))}
      </tr>
    </thead>
    <tbody role="rowgroup">
      {shown.map((one) => (
        <Row key={one.instance.id} shown={one} isSelected={one.instance.id === selected} onSwitch={onSwitch} />
      ))}
    </tbody>
  </table>
)

interface RowProps extends Pick<Props, "onSwitch"> {
  readonly shown: Shown
  readonly isSelected: boolean
}

const Row = ({ isSelected, onSwitch, shown }: RowProps) =>
  // Of hundreds of rows a few change at a time; the others are not rendered again.
  useMemo(() => {
    const { instance } = shown
    const { id, ping, pool, reason, status, tcps, type, udps, url } = instance
    const isOn = status !== "stopped"
    return (
      <tr role="row" class={isSelected ? "selected" : ""}>
        <td role="cell" class="what">
          <a href={linkTo(id)} aria-current={isSelected ? "true" : undefined}>
            {nameOf(instance)}
          </a>
          <small>
            <span class="role">{type}</span> {endsOf(url)}
          </small>
        </td>
        <td role="cell" data-label="Status" title={reason}>
          <Status instance={instance} />
        </td>
        <td role="cell" class="figure" data-label="Visitors">
          {tcps + udps}
        </td>
        <td role="cell" class="figure" data-label="In" title={`${bytes(shown.since.rx)} in total`}>
          {rate(shown.rate.rx)}
        </td>
        <td role="cell" class="figure" data-label="Out" title={`${bytes(shown.since.tx)} in total`}>
          {rate(shown.rate.tx)}
        </td>
        <td role="cell" class="figure" data-label="Pool">
          {pool}
        </td>
        <td role="cell" class="figure" data-label="Round trip">
          {status === "running" && ping > 0 ? `${ping} ms` : "–"}
        </td>
        <td role="cell" class="acts">
          <button
            type="button"
            aria-label={`${isOn ? "Stop" : "Start"} ${nameOf(instance)}`}
            onClick={() => onSwitch(instance)}
          >
            {isOn ? "Stop" : "Start"}
          </button>
        </td>
      </tr>
    )
  }, [shown, isSelected, onSwitch])

/** The arrow keys move the focus between instances. */
const moveFocus = (event: KeyboardEvent) => {
  const by = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0
  if (by === 0 || !(event.currentTarget instanceof HTMLElement)) return
  const links = [...event.currentTarget.querySelectorAll<HTMLElement>("td.what a")]
  const at = links.findIndex((link) => link.closest("tr")?.contains(document.activeElement))
  links[Math.min(Math.max(at + by, 0), links.length - 1)]?.focus()
  event.preventDefault()
}
