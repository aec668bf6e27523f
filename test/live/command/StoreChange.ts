/**
 * Random changes of a store. Run as a program: applies them to a store in a folder until it is killed.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Fs from "node:fs"
import nodeProcess from "node:process"
import { Id, noMeta, noTraffic } from "../../../src/master/Instance.js"
import { InstanceStore } from "../../../src/master/InstanceStore.js"
import * as NodeState from "../../../src/node/store/NodeState.js"

/** `number` counts the changes and makes each one different. */
export interface Change {
  readonly kind: "insert" | "save" | "url" | "traffic" | "remove" | "identify"
  readonly number: number
  /** Which of eight instances; it may not exist. */
  readonly at: number
}

const kinds = ["insert", "save", "url", "traffic", "remove", "identify"] as const

const draw = (number: number): Change => ({
  kind: kinds[Math.floor(Math.random() * kinds.length)] ?? "save",
  number,
  at: Math.floor(Math.random() * 8)
})

/** Applies the change; has no effect if it needs an instance that does not exist, or adds one that exists. */
export const apply = (store: InstanceStore["Type"], { at, kind, number }: Change) =>
  Effect.gen(function* () {
    const id = Id.make(at.toString(16).padStart(8, "0"))
    const text = `${number}`.repeat(1 + (number % 200))
    const known = (yield* store.list).find((stored) => stored.id === id)
    if (kind === "identify") return yield* store.identify({ mid: text, alias: text, keyHash: text })
    if (kind === "insert") {
      if (known !== undefined) return
      const fields = { alias: text, url: text, restart: true, meta: noMeta, traffic: noTraffic }
      return yield* store.insert({ id, ...fields, version: 1, created: number })
    }
    if (known === undefined) return
    if (kind === "remove") return yield* store.remove(id)
    if (kind === "url") {
      return yield* store.saveUrl({ id, version: known.version + 1, url: text, time: number })
    }
    if (kind === "save") {
      const meta = { ...noMeta, tags: { [text.slice(0, 200)]: text.slice(0, 200) } }
      return yield* store.save(id, { alias: text, meta, restart: number % 2 === 0, version: known.version + 1 })
    }
    // Of all instances at once: an incomplete transaction would show.
    const traffic = (yield* store.list).map((stored) => [stored.id, { ...noTraffic, tcprx: number }] as const)
    return yield* store.saveTraffic(new Map(traffic))
  })

/** The whole content of the store, in a fixed order. */
export const all = (store: InstanceStore["Type"]) =>
  Effect.map(store.backup, ({ identity, instances, versions }) => ({
    identity,
    instances: instances.toSorted((a, b) => (a.id < b.id ? -1 : 1)),
    versions: versions.toSorted((a, b) => (a.id === b.id ? a.version - b.version : a.id < b.id ? -1 : 1))
  }))

const [, program = "", folder = "", journal = "", first = "0"] = nodeProcess.argv
if (program.endsWith("StoreChange.mjs")) {
  // Written synchronously: the lines are in the file even if this process is killed next.
  const file = Fs.openSync(journal, "a")
  const write = (line: string) => Effect.sync(() => Fs.writeSync(file, `${line}\n`))
  const work = Effect.gen(function* () {
    const store = yield* InstanceStore
    for (let number = Number(first); ; number++) {
      const change = draw(number)
      yield* write(JSON.stringify(change))
      yield* apply(store, change)
      yield* write("done")
    }
  })
  await Effect.runPromise(Effect.provide(work, NodeState.layer(Option.some(Redacted.make(folder)))))
}
