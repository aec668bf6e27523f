import { afterAll, afterEach, assert, beforeAll, beforeEach, describe, it } from "vitest"
import type { Browser, Page } from "playwright-core"
import { randomInt } from "node:crypto"
import { barriers, launch, open, overhang, program, type Window } from "./command/Browser.js"
import { apiKeyOf, makeWorld, type Nodepass, type World } from "./command/Nodepass.js"
import { folder } from "./command/Program.js"

const keyId = "********"

if (program === undefined) console.log("The tests of the master's page are skipped: this machine has no Chromium.")

describe.skipIf(program === undefined)("the master's page, in a browser", () => {
  let browser: Browser
  let world: World
  let master: Nodepass
  let port: number
  let state: string
  let key: string
  let windows: Array<Window>
  beforeAll(async () => {
    world = makeWorld()
    state = folder(world)
    port = await world.freePort()
    ;[master, browser] = await Promise.all([start(port), launch()])
    key = await apiKeyOf(master, port)
  })
  afterAll(async () => {
    await browser.close()
    await world.close()
  })
  beforeEach(() => {
    windows = []
  })
  afterEach(async () => {
    for (const { page } of windows) await page.context().close()
    for (const { id } of await call("GET", "instances")) if (id !== keyId) await call("DELETE", `instances/${id}`)
  })

  /** Starts the master on this port; all of them share one state folder. */
  const start = async (port: number): Promise<Nodepass> => {
    const env = { NP_REPORT_INTERVAL: "200ms", NP_SHUTDOWN_TIMEOUT: "100ms" }
    const started = world.start([`master://127.0.0.1:${port}?state=${state}`], env)
    await started.line(/API is ready/)
    return started
  }
  const base = () => `http://127.0.0.1:${port}/api/v1/`
  const call = async (method: string, path: string, body?: unknown) => {
    const response = await fetch(base() + path, {
      method,
      headers: { "x-api-key": key },
      ...(body === undefined ? {} : { body: JSON.stringify(body) })
    })
    const text = await response.text()
    return text === "" ? undefined : JSON.parse(text)
  }
  const create = (url: string, alias: string) => call("POST", "instances", { url, alias })
  const forward = async (target = 9) => `client://127.0.0.1:${await world.freePort()}/127.0.0.1:${target}?mode=1`

  const visit = async (options?: Parameters<typeof open>[1]): Promise<Page> => {
    const window = await open(browser, options)
    windows.push(window)
    await window.page.goto(base())
    return window.page
  }
  const signIn = async (page: Page) => {
    await page.getByLabel("API key of this master").fill(key)
    await page.keyboard.press("Enter")
    await page.getByText("live", { exact: true }).waitFor()
  }
  const row = (page: Page, name: string) => page.getByRole("row").filter({ hasText: name })
  const heading = (page: Page, name: string) => page.getByRole("heading", { name, exact: true })

  it("asks for the API key, keeps it in the tab only, and drops it at sign-out", async () => {
    const page = await visit()
    await page.getByLabel("API key of this master").fill("0".repeat(32))
    await page.keyboard.press("Enter")
    await page.getByText("Unauthorized: Invalid API key").waitFor()
    await signIn(page)
    await page.reload()
    await page.getByText("live", { exact: true }).waitFor()

    const kept = await page.evaluate("JSON.stringify([Object.values(localStorage), document.cookie, location.href])")
    assert.notInclude(String(kept), key)
    const other = await page.context().newPage()
    await other.goto(base())
    await other.getByLabel("API key of this master").waitFor()

    await page.getByRole("button", { name: "Sign out" }).click()
    await page.getByLabel("API key of this master").waitFor()
    assert.strictEqual(await page.evaluate("sessionStorage.length"), 0)
  })

  it("shows changes in every window as they happen", async () => {
    const [page, other] = [await visit(), await visit()]
    await signIn(page)
    await signIn(other)
    await page.getByText("No instances yet.").waitFor()
    const { id } = await create(await forward(), "bridge")
    for (const one of [page, other]) await row(one, "bridge").getByText("serving").waitFor()
    await row(page, "bridge").getByRole("button", { name: "Stop bridge" }).click()
    for (const one of [page, other]) await row(one, "bridge").getByText("stopped").waitFor()
    await call("PATCH", `instances/${id}`, { alias: "viaduct", action: "start" })
    for (const one of [page, other]) await row(one, "viaduct").getByText("serving").waitFor()
    await call("DELETE", `instances/${id}`)
    for (const one of [page, other]) await one.getByText("No instances yet.").waitFor()
  })

  it("creates, changes, rolls back and deletes instances, and shows what the master refuses", async () => {
    const page = await visit()
    await signIn(page)
    await page.getByRole("button", { name: "New instance" }).click()
    const dialog = page.getByRole("dialog")
    await dialog.getByRole("button", { name: "Server: visitors connect here" }).click()
    assert.match(await dialog.getByLabel("URL").inputValue(), /^server:\/\/[0-9a-f]{32}@:10101\/:8080\?mode=1$/)
    const url = await forward()
    await dialog.getByLabel("URL").fill(`${url}&slot=-1`)
    await dialog.getByLabel("Name").fill("bridge")
    await dialog.getByRole("button", { name: "Create" }).click()
    await dialog.getByText("slot=-1: expected a whole number").waitFor()
    await dialog.getByLabel("URL").fill(url)
    await dialog.getByRole("button", { name: "Create" }).click()
    // The page opens the new instance.
    await heading(page, "bridge").waitFor()
    await page.getByText("bridge was created").waitFor()

    await page.getByRole("button", { name: "Edit" }).click()
    const save = dialog.getByRole("button", { name: "Save" })
    await dialog.getByLabel("URL").fill(`${url}&slot=none`)
    await dialog.getByLabel("Tags").fill(`env=${"x".repeat(300)}`)
    await dialog.getByLabel("start with the master").uncheck()
    await save.click()
    await dialog.getByText("expected a text of at most 256 characters").waitFor()
    await dialog.getByLabel("Tags").fill("env=prod\nteam=net")
    await save.click()
    await dialog.getByText("slot=none: expected a whole number").waitFor()
    await dialog.getByLabel("URL").fill(`${url}&slot=5`)
    await save.click()
    await page.getByText("env=prod, team=net").waitFor()
    await page.getByText("starts on request only").waitFor()
    const versions = page.getByRole("region", { name: "Versions" })
    await versions.getByText("slot=5").waitFor()

    await versions.getByRole("button", { name: "Roll back to version 1" }).click()
    await dialog.getByRole("button", { name: "Roll back" }).click()
    await page.getByText("was rolled back to version 1").waitFor()
    await versions.getByRole("listitem").filter({ hasText: "current" }).getByText("4", { exact: true }).waitFor()
    const [instance] = await call("GET", "instances")
    assert.deepInclude(instance, { alias: "bridge", url: `${url}&log=info`, restart: false, version: 4 })
    assert.deepStrictEqual(instance.meta.tags, { env: "prod", team: "net" })

    await page.getByRole("button", { name: "Reset counters" }).click()
    await dialog.getByRole("button", { name: "Reset" }).click()
    await page.getByText("bridge counts from zero").waitFor()
    await page.getByRole("button", { name: "Restart" }).click()
    await page
      .getByRole("log")
      .filter({ hasText: /forwarding[\s\S]*forwarding[\s\S]*forwarding/ })
      .waitFor()

    await page.getByRole("button", { name: "Delete" }).click()
    await dialog.getByRole("button", { name: "Delete" }).click()
    await page.getByText("No instances yet.").waitFor()
    assert.strictEqual((await call("GET", "instances")).length, 1)
  })

  it("shows why an instance is in error, and hides keys until asked", async () => {
    const taken = await world.listen(() => {})
    await create(`server://hush@127.0.0.1:${taken.port}/127.0.0.1:9?mode=2`, "blocked")
    const page = await visit()
    await signIn(page)
    await row(page, "blocked").getByText("error").waitFor()
    await page.getByRole("link", { name: "blocked" }).click()
    await page.getByText("address already in use").first().waitFor()
    const configuration = page.getByRole("region", { name: "Configuration" })
    assert.notInclude((await page.textContent("body")) ?? "", "hush")
    await configuration.getByRole("button", { name: "Show the key" }).click()
    await configuration.getByText("server://hush@").first().waitFor()
  })

  it("draws traffic, visitors, pool and round trip from events", async () => {
    const target = await world.listen((socket) => socket.pipe(socket))
    const [tunnel, visits] = [await world.freePort(), await world.freePort()]
    await create(`server://key@127.0.0.1:${tunnel}/127.0.0.1:${visits}?mode=1&tls=1`, "web, public side")
    await create(`client://key@127.0.0.1:${tunnel}/127.0.0.1:${target.port}?mode=2&min=8`, "web, private side")
    await create(await forward(), "files")
    const page = await visit({ viewport: { width: 1280, height: 760 } })
    await signIn(page)
    await row(page, "public side")
      .getByRole("cell")
      .filter({ hasText: /^\d+ ms$/ })
      .waitFor()
    await row(page, "public side").getByText("8", { exact: true }).waitFor()
    await page.getByRole("link", { name: "web, public side" }).click()
    const chart = page.getByRole("img", { name: /^Traffic/ })
    await page.getByRole("img", { name: "Traffic: 0 B/s in, 0 B/s out" }).waitFor()
    const drawn = () => chart.locator("canvas").evaluate((canvas: { toDataURL: () => string }) => canvas.toDataURL())
    const before = await drawn()
    const visitor = world.connect(visits)
    const timer = setInterval(() => visitor.write(Buffer.alloc(randomInt(40_000))), 20)
    visitor.resume()
    try {
      await page.getByRole("img", { name: /^Traffic: [\d.]+ [KM]iB\/s in, [\d.]+ [KM]iB\/s out$/ }).waitFor()
      await page.getByText("1 TCP, 0 UDP").waitFor()
      await page
        .getByText(/iB\/s, [\d.]+ [KM]iB in total/)
        .first()
        .waitFor()
      assert.notStrictEqual(await drawn(), before)
      if (process.env["NODEPASS_WRITE"] !== undefined) await picture(page)
      await page.getByRole("button", { name: "6 h" }).click()
      await page.getByRole("button", { name: "6 h", pressed: true }).waitFor()
    } finally {
      clearInterval(timer)
    }
  })

  /** The screenshot in the README, with a chart that shows some traffic. */
  const picture = async (page: Page) => {
    await page.waitForTimeout(25_000)
    await page.screenshot({ path: "docs/page.png" })
  }

  it("works without a mouse", async () => {
    const page = await visit()
    await signIn(page)
    const { keyboard } = page
    for (const alias of ["first", "second"]) {
      await keyboard.press("n")
      await page.getByRole("dialog").waitFor()
      await keyboard.type(await forward())
      await page.getByLabel("Name", { exact: true }).focus()
      await keyboard.type(alias)
      await keyboard.press("Enter")
      await heading(page, alias).waitFor()
      await keyboard.press("Escape")
      await heading(page, alias).waitFor({ state: "detached" })
    }
    await keyboard.press("/")
    await keyboard.type("sec")
    await row(page, "first").waitFor({ state: "detached" })
    await keyboard.press("Tab")
    await page.getByLabel("Search instances").fill("")
    await row(page, "first").waitFor()
    await page.getByRole("link", { name: "first" }).focus()
    await keyboard.press("ArrowDown")
    await keyboard.press("Enter")
    await heading(page, "second").waitFor()
    await keyboard.press("Escape")
    await heading(page, "second").waitFor({ state: "detached" })
    assert.strictEqual(await page.evaluate("document.activeElement.textContent"), "second")
    await keyboard.press("?")
    await page.getByRole("dialog", { name: "Keyboard shortcuts" }).waitFor()
    await keyboard.press("Escape")
    await page.getByRole("dialog").waitFor({ state: "detached" })
    assert.strictEqual(await page.evaluate("document.activeElement.textContent"), "second")
  })

  it("reconnects when the master is back, and shows the state it has then", async () => {
    const { id } = await create(await forward(), "going")
    await create(await forward(), "staying")
    const page = await visit()
    await signIn(page)
    await row(page, "going").waitFor()
    await master.stop("SIGKILL")
    await page.getByText("not connected; retrying").waitFor()
    // Change the state from another port, which the page does not know.
    const elsewhere = await world.freePort()
    const other = await start(elsewhere)
    await fetch(`http://127.0.0.1:${elsewhere}/api/v1/instances/${id}`, {
      method: "DELETE",
      headers: { "x-api-key": key }
    })
    await other.stop()
    master = await start(port)
    await page.getByText("live", { exact: true }).waitFor()
    await row(page, "going").waitFor({ state: "detached" })
    await row(page, "staying").getByText("serving").waitFor()
  })

  it("creates a new API key, keeps using it, and signs out other windows", async () => {
    const [page, other] = [await visit(), await visit()]
    await signIn(page)
    await signIn(other)
    await page.getByRole("button", { name: "Master" }).click()
    await page.getByRole("button", { name: "New API key" }).click()
    await page.getByRole("button", { name: "Create a new key" }).click()
    const shown = page.getByRole("dialog", { name: "The new API key" })
    const fresh = await shown.getByLabel("API key").inputValue()
    assert.match(fresh, /^[0-9a-f]{32}$/)
    assert.notStrictEqual(fresh, key)
    key = fresh
    await shown.getByRole("button", { name: "Close" }).click()
    await other.getByText("Unauthorized: Invalid API key").waitFor()
    await create(await forward(), "bridge")
    await row(page, "bridge").getByText("serving").waitFor()
  })

  it("passes axe-core in light and dark, and fits a phone", async () => {
    await create(await forward(), "a name that is longer than most screens of phones are wide, and goes on behind that")
    const { id } = await create(await forward(), "short")
    const phone = { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true }
    const grounds = new Set<unknown>()
    for (const options of [{ colorScheme: "light" }, { colorScheme: "dark" }, phone] as const) {
      const page = await visit(options)
      const look = async (what: string) => {
        assert.deepStrictEqual(await barriers(page), [], what)
        assert.isAtMost(await overhang(page), 0, what)
      }
      await look("sign in")
      await signIn(page)
      await row(page, "short").waitFor()
      grounds.add(await page.evaluate("getComputedStyle(document.body).backgroundColor"))
      await look("overview")
      await page.goto(`${base()}#/${id}`)
      await heading(page, "short").waitFor()
      await page.getByRole("log").filter({ hasText: "forwarding" }).waitFor()
      await look("detail")
      await page.getByRole("button", { name: "Edit" }).click()
      await look("dialog")
      await page.goto(`${base()}docs`)
      await page.getByRole("heading", { name: "instances" }).waitFor()
      await look("documentation")
    }
    assert.strictEqual(grounds.size, 2)
  })

  it("has an API page that calls endpoints, streams included", async () => {
    await create(await forward(), "bridge")
    const page = await visit()
    await signIn(page)
    await page.getByRole("link", { name: "API" }).click()
    const endpoint = (text: string) => page.locator("details").filter({ has: page.getByText(text, { exact: true }) })
    const list = endpoint("/api/v1/instances").filter({ hasText: "GET" })
    await list.locator("summary").click()
    // This tab has the key already.
    await list.getByRole("button", { name: "Send" }).click()
    await list
      .getByLabel("Response")
      .filter({ hasText: /^200 OK[\s\S]*"alias": "bridge"/ })
      .waitFor()
    const get = endpoint("/api/v1/instances/{id}").filter({ hasText: "GET" })
    await get.locator("summary").click()
    await get.getByLabel("id").fill("ffffffff")
    await get.getByRole("button", { name: "Send" }).click()
    await get
      .getByLabel("Response")
      .filter({ hasText: /^404 [\s\S]*ffffffff: not found/ })
      .waitFor()
    const events = endpoint("/api/v1/events")
    await events.locator("summary").click()
    await events.getByRole("button", { name: "Send" }).click()
    await events
      .getByLabel("Response")
      .filter({ hasText: /event: instance/ })
      .waitFor()
    await events.getByRole("button", { name: "Stop" }).click()
    await events.getByRole("button", { name: "Send" }).waitFor()
    // A refused call is shown too; the browser logs it as an error.
    const [window] = windows
    assert.deepStrictEqual(
      window?.complaints.filter((text) => !/ 404 /.test(text)),
      []
    )
  })

  it("contacts the master only, and violates no content security policy", async () => {
    await create(await forward(), "bridge")
    const page = await visit()
    await signIn(page)
    await page.getByRole("link", { name: "bridge" }).click()
    await page.getByRole("log").filter({ hasText: "forwarding" }).waitFor()
    await page.getByRole("button", { name: "Master" }).click()
    await page.getByRole("dialog").waitFor()
    const [window] = windows
    assert.deepStrictEqual(window?.complaints, [])
    assert.deepStrictEqual([...(window?.origins ?? [])], [new URL(base()).origin])
  })
})
