/**
 * The page: a list of the instances, one in detail, and the dialogs that change them.
 */
import { useCallback, useEffect, useRef, useState } from "preact/hooks"
import type { Api, Instance, Version } from "./Api.js"
import { Detail } from "./Detail.js"
import * as Format from "./Format.js"
import * as Forms from "./Forms.js"
import { Header } from "./Header.js"
import * as MasterForms from "./MasterForms.js"
import { Overview } from "./Overview.js"
import { home, linkTo, useRoute } from "./Route.js"
import { SignIn } from "./SignIn.js"
import { type Store, useStore } from "./Store.js"
import { statusOf } from "./Status.js"

export const App = () => {
  const store = useStore()
  const { api } = store.state
  return api === undefined ? <SignIn store={store} /> : <Master store={store} api={api} />
}

// internal

type Open =
  | { readonly _tag: "Create" | "About" | "NewKey" | "Keys" }
  | { readonly _tag: "ShowKey"; readonly key: string }
  | { readonly _tag: "Edit" | "Delete" | "Reset"; readonly instance: Instance }
  | { readonly _tag: "RollBack"; readonly instance: Instance; readonly version: Version }

const Master = ({ api, store }: { readonly api: Api; readonly store: Store }) => {
  const { state } = store
  const route = useRoute()
  const [open, setOpen] = useState<Open>()
  const [notice, setNotice] = useState("")
  const search = useRef<HTMLInputElement>(null)
  const close = useCallback(() => setOpen(undefined), [])

  const act = useCallback(
    (instance: Instance, action: "restart" | "start" | "stop") => {
      setNotice(`${Format.nameOf(instance)}: ${action}…`)
      api.send<Instance>("PATCH", `instances/${instance.id}`, { action }).then(
        ({ note, value }) => setNotice(`${Format.nameOf(value)}: ${note === "" ? announced(value) : note}`),
        (error: unknown) => setNotice(error instanceof Error ? error.message : String(error))
      )
    },
    [api]
  )
  const onSwitch = useCallback(
    (instance: Instance) => act(instance, instance.status === "stopped" ? "start" : "stop"),
    [act]
  )
  const onCreate = useCallback(() => setOpen({ _tag: "Create" }), [])
  const onDone = (instance: Instance, result: string) => setNotice(`${Format.nameOf(instance)} ${result}`)

  // One listener for the life of the page: a key pressed right after a render must find the state of that render.
  const onKeyDown = useRef<(event: KeyboardEvent) => void>(() => undefined)
  onKeyDown.current = (event) => {
    if (open !== undefined || event.ctrlKey || event.metaKey || event.altKey) return
    if (event.key === "Escape" && route !== undefined) return backToList(route)
    if (event.target instanceof HTMLElement && event.target.closest("input, textarea, select") !== null) return
    const shortcuts = { "/": () => search.current?.focus(), n: onCreate, "?": () => setOpen({ _tag: "Keys" }) }
    const run = Object.entries(shortcuts).find(([key]) => key === event.key)?.[1]
    if (run === undefined) return
    event.preventDefault()
    run()
  }
  useEffect(() => {
    const listener = (event: KeyboardEvent) => onKeyDown.current(event)
    addEventListener("keydown", listener)
    return () => removeEventListener("keydown", listener)
  }, [])

  const shown = route === undefined ? undefined : state.instances.get(route)
  return (
    <>
      <Header store={store} onCreate={onCreate} onOpen={(_tag) => setOpen({ _tag })} />
      <main class={route === undefined ? "" : "with-detail"}>
        <Overview state={state} selected={route} search={search} onSwitch={onSwitch} onCreate={onCreate} />
        {shown !== undefined ? (
          <Detail
            api={api}
            shown={shown}
            onAct={act}
            onEdit={(instance) => setOpen({ _tag: "Edit", instance })}
            onReset={(instance) => setOpen({ _tag: "Reset", instance })}
            onDelete={(instance) => setOpen({ _tag: "Delete", instance })}
            onRollBack={(instance, version) => setOpen({ _tag: "RollBack", instance, version })}
          />
        ) : route !== undefined && state.loaded ? (
          <article class="detail">
            <p class="empty">
              No instance has the id {route}. <a href={home}>All instances</a>
            </p>
          </article>
        ) : undefined}
      </main>
      <footer>
        <p role="status" class="notice">
          {notice}
        </p>
      </footer>
      {open?._tag === "Create" ? (
        <Forms.Create
          api={api}
          onClose={close}
          onDone={(instance, result) => {
            onDone(instance, result)
            location.hash = linkTo(instance.id)
          }}
        />
      ) : open?._tag === "Edit" ? (
        <Forms.Edit api={api} instance={open.instance} onClose={close} onDone={onDone} />
      ) : open?._tag === "Reset" ? (
        <Forms.Reset api={api} instance={open.instance} onClose={close} onDone={onDone} />
      ) : open?._tag === "Delete" ? (
        <Forms.Delete
          api={api}
          instance={open.instance}
          onClose={close}
          onDone={(instance, result) => {
            onDone(instance, result)
            location.hash = home
          }}
        />
      ) : open?._tag === "RollBack" ? (
        <Forms.RollBack api={api} instance={open.instance} version={open.version} onClose={close} onDone={onDone} />
      ) : open?._tag === "About" && state.info !== undefined ? (
        <MasterForms.About api={api} info={state.info} onClose={close} onNewKey={() => setOpen({ _tag: "NewKey" })} />
      ) : open?._tag === "NewKey" ? (
        <MasterForms.NewKey
          api={api}
          onClose={close}
          onKey={(key) => {
            void store.signIn(key)
            setOpen({ _tag: "ShowKey", key })
          }}
        />
      ) : open?._tag === "ShowKey" ? (
        <MasterForms.ShowKey apiKey={open.key} onClose={close} />
      ) : open?._tag === "Keys" ? (
        <MasterForms.Keys onClose={close} />
      ) : undefined}
    </>
  )
}

const announced = (instance: Instance): string =>
  instance.status === "error" ? `error: ${instance.error}` : statusOf(instance)

/** Returns to the list and puts the focus back on the instance. */
const backToList = (id: string) => {
  location.hash = home
  document.querySelector<HTMLElement>(`td.what a[href="${linkTo(id)}"]`)?.focus()
}
