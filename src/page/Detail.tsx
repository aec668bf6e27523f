/**
 * One instance: figures, traffic, log, versions and actions.
 */
import { useEffect, useRef, useState } from "preact/hooks"
import type { Api, Instance, Version } from "./Api.js"
import { Chart } from "./Chart.js"
import { Facts } from "./Facts.js"
import { bytes, masked, nameOf, rate } from "./Format.js"
import { Logs } from "./Logs.js"
import { home } from "./Route.js"
import { Status } from "./Status.js"
import type { Shown } from "./State.js"
import { Versions } from "./Versions.js"

export interface Props {
  readonly api: Api
  readonly shown: Shown
  readonly onAct: (instance: Instance, action: "restart" | "start" | "stop") => void
  readonly onEdit: (instance: Instance) => void
  readonly onReset: (instance: Instance) => void
  readonly onDelete: (instance: Instance) => void
  readonly onRollBack: (instance: Instance, version: Version) => void
}

export const Detail = ({ api, onAct, onDelete, onEdit, onReset, onRollBack, shown }: Props) => {
  const { instance } = shown
  const title = useRef<HTMLHeadingElement>(null)
  // Keyboard users continue here, not at the link they came from.
  useEffect(() => title.current?.focus(), [instance.id])
  const isOn = instance.status !== "stopped"
  return (
    <article class="detail" aria-labelledby="detail-title">
      <div class="bar">
        <a href={home} class="back">
          All instances
        </a>
        <h2 id="detail-title" ref={title} tabIndex={-1}>
          {nameOf(instance)}
        </h2>
        <Status instance={instance} />
      </div>
      {instance.reason === "" || instance.reason === "stopped" ? undefined : (
        <p class={instance.status === "error" ? "problem" : "reason"}>{instance.reason}</p>
      )}
      <div class="actions">
        <button type="button" onClick={() => onAct(instance, isOn ? "stop" : "start")}>
          {isOn ? "Stop" : "Start"}
        </button>
        <button type="button" onClick={() => onAct(instance, "restart")}>
          Restart
        </button>
        <button type="button" onClick={() => onEdit(instance)}>
          Edit
        </button>
        <button type="button" onClick={() => onReset(instance)}>
          Reset counters
        </button>
        <button type="button" class="danger" onClick={() => onDelete(instance)}>
          Delete
        </button>
      </div>
      <Figures shown={shown} />
      <Chart api={api} shown={shown} />
      <Configuration instance={instance} />
      <Logs api={api} id={instance.id} />
      <Versions api={api} instance={instance} onRollBack={(version) => onRollBack(instance, version)} />
    </article>
  )
}

// internal

const Figures = ({ shown }: Pick<Props, "shown">) => {
  const { mode, ping, pool, refused, status, tcps, udps } = shown.instance
  const refusals = Object.entries(refused).map(([kind, count]) => `${count} ${kind}`)
  const figures = [
    ["Visitors", `${tcps} TCP, ${udps} UDP`],
    ["In", `${rate(shown.rate.rx)}, ${bytes(shown.since.rx)} in total`],
    ["Out", `${rate(shown.rate.tx)}, ${bytes(shown.since.tx)} in total`],
    ["Pool", `${pool} ready`],
    ["Round trip", status === "running" && ping > 0 ? `${ping} ms` : "–"],
    ["Mode", String(mode)],
    ["Refused", refusals.length === 0 ? "–" : refusals.join(", ")]
  ] as const
  return <Facts class="figures" rows={figures} />
}

const Configuration = ({ instance: { config, id, meta, restart, type, url, version } }: Pick<Shown, "instance">) => {
  const [shows, setShows] = useState(false)
  const text = (url: string) => (shows ? url : masked(url))
  const tags = Object.entries(meta.tags)
  return (
    <section aria-labelledby="facts-title">
      <div class="bar">
        <h3 id="facts-title">Configuration</h3>
        <button type="button" aria-pressed={shows} onClick={() => setShows(!shows)}>
          Show the key
        </button>
      </div>
      <Facts
        rows={[
          ["URL", <code>{text(url)}</code>],
          ["With defaults", <code>{text(config)}</code>],
          ["Id", `${id}, ${type}, version ${version}`],
          ["Restart", restart ? "starts with the master and after a failure" : "starts on request only"],
          ["Tags", tags.length === 0 ? "–" : tags.map(([name, value]) => `${name}=${value}`).join(", ")]
        ]}
      />
    </section>
  )
}
