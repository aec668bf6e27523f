import { assert, describe, it } from "vitest"
import { once } from "node:events"
import * as Fs from "node:fs"
import type * as Net from "node:net"
import * as Os from "node:os"
import * as Path from "node:path"
import process from "node:process"
import { runs } from "../Runs.js"
import { apiKeyOf, makeWorld, pause } from "./command/Nodepass.js"

const subscribers = runs(100, 1000)
const readers = runs(30, 100)

interface Listener {
  readonly socket: Net.Socket
  /** Resolves when it has received the event with that alias. */
  readonly received: (alias: string) => Promise<void>
  /** What it received: aliases, and the numbers of events lost between them. */
  readonly events: () => ReadonlyArray<string>
}

/** Reads an event stream. */
const listen = (socket: Net.Socket): Listener => {
  const events: Array<string> = []
  let rest = ""
  socket.setEncoding("utf8").on("data", (text: string) => {
    const blocks = `${rest}${text}`.split("\n\n")
    rest = blocks.pop() ?? ""
    for (const block of blocks) {
      const [, type, alias = ""] = /"type":"(\w+)".*?(?:"alias":"([^"]*)"|$)/.exec(block) ?? []
      const [, lost] = /"logs":"(\d+) events lost"/.exec(block) ?? []
      if (lost !== undefined) events.push(`lost ${lost}`)
      else if (type === "update") events.push(alias)
    }
  })
  const received = async (alias: string) => {
    while (!events.includes(alias)) await once(socket, "data")
  }
  return { socket, received, events: () => events }
}

describe("many subscribers of a master's events", () => {
  it("do not slow the API, even when most of them never read", async () => {
    const world = makeWorld()
    const folder = Fs.mkdtempSync(Path.join(Os.tmpdir(), "nodepass-crowd-"))
    try {
      const port = await world.freePort()
      const master = world.start([`master://127.0.0.1:${port}?log=warn&state=${folder}`])
      const key = await apiKeyOf(master, port)
      const call = async (method: string, path: string, body?: unknown) => {
        const response = await fetch(`http://127.0.0.1:${port}${path}`, {
          method,
          headers: { "x-api-key": key },
          ...(body === undefined ? {} : { body: JSON.stringify(body) })
        })
        assert.isTrue(response.ok, `${method} ${path}: ${response.status}`)
        return response.text()
      }
      const metric = async (name: string) =>
        Number(new RegExp(`^${name} (\\S+)$`, "m").exec(await call("GET", "/metrics"))?.[1])
      const subscribed = async (count: number) => {
        while ((await metric("nodepass_event_subscribers")) !== count) await pause()
      }
      const subscribe = async () => {
        const socket = world.connect(port)
        await once(socket, "connect")
        socket.write(`GET /api/v1/events HTTP/1.1\r\nhost: master\r\nx-api-key: ${key}\r\n\r\n`)
        return socket
      }
      const made = await call("POST", "/api/v1/instances", {
        // It waits for no server, so that nothing but a rename changes it.
        url: `client://127.0.0.1:${await world.freePort()}/127.0.0.1:10?mode=1&log=none`
      })
      const { id } = JSON.parse(made)
      const rename = (alias: string, meta?: unknown) => call("PATCH", `/api/v1/instances/${id}`, { alias, meta })
      await rename("first")

      const sockets = await Promise.all(Array.from({ length: subscribers }, subscribe))
      const silent = sockets.splice(readers)
      const listening = sockets.map(listen)
      await subscribed(subscribers)
      const aliases = Array.from({ length: 30 }, (_, at) => `event-${at}`)
      for (const alias of aliases) await rename(alias)
      await Promise.all(listening.map(({ received }) => received("event-29")))
      for (const { events } of listening) assert.deepStrictEqual(events(), aliases)
      assert.isBelow(await metric("nodepass_memory_bytes"), 500_000_000)

      // Subscribers that disconnect without having read are removed.
      for (const { socket } of listening) socket.destroy()
      for (const socket of silent.splice(2)) socket.destroy()
      await subscribed(2)
      if (process.platform === "linux") assert.isBelow(Fs.readdirSync(`/proc/${master.pid}/fd`).length, 100)

      // More than the kernel and the master buffer for a subscriber that does not read.
      const tags = Object.fromEntries(
        Array.from({ length: 64 }, (_, at) => [`${at}`.padEnd(250, "n"), "v".repeat(250)])
      )
      const many = Array.from({ length: 400 }, (_, at) => `large-${at}`)
      const ready = listen(await subscribe())
      await subscribed(3)
      // The tags stay, and are in every event.
      for (const [at, alias] of many.entries()) await rename(alias, at === 0 ? { tags } : undefined)
      await ready.received("large-399")
      assert.deepStrictEqual(ready.events(), many)
      for (const socket of silent) {
        const late = listen(socket)
        await late.received("large-399")
        const all = [...aliases, ...many]
        let at = 0
        for (const event of late.events()) {
          const [, lost] = /^lost (\d+)$/.exec(event) ?? []
          if (lost === undefined) assert.strictEqual(event, all[at++])
          else at += Number(lost)
        }
        assert.deepStrictEqual([at, late.events().filter((event) => event.startsWith("lost")).length], [all.length, 1])
      }
      assert.isBelow(await metric("nodepass_memory_bytes"), 500_000_000)
      assert.strictEqual(await master.stop(), 0)
    } finally {
      await world.close()
      Fs.rmSync(folder, { recursive: true })
    }
  })
})
