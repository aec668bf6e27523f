import { assert, describe, it } from "@effect/vitest"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { execFileSync } from "node:child_process"
import process from "node:process"
import * as SecretVariables from "../../src/node/process/SecretVariables.js"

describe("the variables with secrets", () => {
  it("are taken out of the environment, which children inherit, and are read through the provider only", () => {
    process.env["NP_KEY"] = "q3f7n5x2"
    process.env["NP_REPORT_INTERVAL"] = "5s"
    try {
      const provider = SecretVariables.provider(SecretVariables.take())
      assert.notInclude(execFileSync("env", { encoding: "utf8" }), "q3f7n5x2")
      const read = (name: string) =>
        Effect.runSync(Effect.option(Effect.withConfigProvider(Config.string(name), provider)))
      assert.deepStrictEqual(["NP_KEY", "NP_REPORT_INTERVAL", "NP_API_KEY"].map(read), [
        Option.some("q3f7n5x2"),
        Option.some("5s"),
        Option.none()
      ])
    } finally {
      delete process.env["NP_KEY"]
      delete process.env["NP_REPORT_INTERVAL"]
    }
  })
})
