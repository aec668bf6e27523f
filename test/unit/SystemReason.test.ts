import { assert, describe, it } from "@effect/vitest"
import * as Fs from "node:fs"
import * as Path from "node:path"
import * as SystemReason from "../../src/core/SystemReason.js"

const errorOf = (call: () => unknown): unknown => {
  try {
    return call()
  } catch (error) {
    return error
  }
}
const missing = Path.join(import.meta.dirname, "missing")

describe("the reason of a failed system call", () => {
  it.each([
    ["no such file or folder", errorOf(() => Fs.readFileSync(missing))],
    ["its parent is not a folder", errorOf(() => Fs.readFileSync(Path.join(import.meta.filename, "x")))],
    ["it is a folder", errorOf(() => Fs.readFileSync(import.meta.dirname))],
    ["its name is too long", errorOf(() => Fs.readFileSync("x".repeat(300)))],
    ["directory not empty", errorOf(() => Fs.rmdirSync(import.meta.dirname))],
    ["resource busy or locked", new Error(`EBUSY: resource busy or locked, rename '/a' -> '/b'`)],
    ["connection refused", new AggregateError([Object.assign(new Error(), { code: "ECONNREFUSED" })], "")],
    ["database is locked", Object.assign(new Error("database is locked"), { code: "SQLITE_BUSY" })],
    ["EWHAT", Object.assign(new Error(""), { code: "EWHAT" })],
    ["a text", "a text"]
  ])("is %s", (expected, error) => {
    assert.strictEqual(SystemReason.of(error), expected)
  })
})
