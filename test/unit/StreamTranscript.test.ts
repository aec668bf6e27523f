import { assert, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import { Multiplexer } from "../../src/stream/Multiplexer.js"
import type { VisitorStream } from "../../src/stream/VisitorStream.js"
import * as NonBlocking from "../../src/transport/NonBlocking.js"
import { textOf, utf8 } from "../Bytes.js"

/** A connection whose bytes the test puts in and takes out. */
const makeConnection = () => {
  const incoming: Array<Uint8Array> = []
  const written: Array<Uint8Array> = []
  let hasEnded = false
  let owner: NonBlocking.Owner | undefined
  const connection: NonBlocking.Connection = {
    read: (bytes, at, size) => {
      const first = incoming.shift()
      if (first === undefined) return hasEnded ? 0 : NonBlocking.nothing
      assert.isAtMost(first.length, size)
      bytes.set(first, at)
      return first.length
    },
    write: (bytes, at, size) => {
      written.push(bytes.slice(at, at + size))
      return size
    },
    shutdown: () => undefined,
    close: () => undefined,
    reset: () => undefined,
    setOwner: (next) => {
      owner = next
    }
  }
  return {
    connection,
    put: (bytes: Uint8Array) => {
      incoming.push(bytes)
      owner?.ready(true, false)
    },
    end: () => {
      hasEnded = true
      owner?.ready(true, false)
    },
    take: () => Buffer.concat(written.splice(0))
  }
}

const document = Path.join(import.meta.dirname, "../../docs/protocol.md")
/** The lines of the transcript: who sends, what, and the bytes. */
const documented = () => {
  const [, block = ""] = /```frames\n([^`]*)```/.exec(Fs.readFileSync(document, "utf8")) ?? []
  return block
}

it("a visitor on a stream has the frames of the transcript", () => {
  const lines: Array<string> = []
  const opened: Array<{ readonly stream: VisitorStream; readonly visit: string }> = []
  const options = { maxStreams: 10, idleMillis: Infinity, wake: () => undefined, lost: () => undefined } as const
  const failed = (_: unknown, problem: string) => assert.fail(problem)
  const visitors = new Multiplexer({ ...options, visitors: "local", failed, opened: () => assert.fail("opened") })
  const targets = new Multiplexer({
    ...options,
    visitors: "remote",
    failed,
    opened: (stream, payload) => void opened.push({ stream, visit: textOf(payload) })
  })
  const [left, right, visitor, target] = [makeConnection(), makeConnection(), makeConnection(), makeConnection()]
  /** Passes on what both sides write, frame by frame, until they are silent. */
  const exchange = () => {
    for (let round = 0; round < 4; round++) {
      for (const [side, mine, theirs, name] of [
        [visitors, left, right, "V>T"],
        [targets, right, left, "T>V"]
      ] as const) {
        side.turn()
        const bytes = mine.take()
        for (let at = 0; at < bytes.length;) {
          const size = 8 + bytes.readUInt16BE(at + 2)
          lines.push(`${name} ${names[bytes[at] ?? 0]} ${bytes.subarray(at, at + size).toString("hex")}`)
          at += size
        }
        if (bytes.length > 0) theirs.put(bytes)
      }
    }
  }
  visitors.attach(7, 1, left.connection)
  targets.attach(7, 1, right.connection)
  exchange()
  const visit = "?from=203.0.113.7:50122&to=198.51.100.2:8080#1"
  visitors.open(visitor.connection, utf8(visit), { ended: (result) => assert.strictEqual(result._tag, "Done") })
  visitor.put(utf8("hi"))
  exchange()
  const [first] = opened
  assert.strictEqual(first?.visit, visit)
  if (first !== undefined) targets.connect(first.stream, target.connection)
  assert.strictEqual(textOf(target.take()), "hi")
  visitor.end()
  target.put(utf8("HI"))
  target.end()
  exchange()
  assert.strictEqual(textOf(visitor.take()), "HI")
  for (const side of [visitors, targets]) side.sweep(1000, 2000)
  exchange()
  for (const side of [visitors, targets]) assert.strictEqual(side.counts().streams, 0)

  const block = `${lines.join("\n")}\n`
  if (process.env["NODEPASS_WRITE"] === "1") {
    const text = Fs.readFileSync(document, "utf8")
    Fs.writeFileSync(document, text.replace(/```frames\n[^`]*```/, `\`\`\`frames\n${block}\`\`\``))
  }
  assert.strictEqual(documented(), block)
})

const names = ["", "open", "data", "end", "reset", "credit", "move", "moved", "stay", "ack", "attach"]
