/**
 * The page: whoever has the key sees every instance, and does with them what the API can do.
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
        ({ note, value }) => setNotice(`${Format.nameOf(value)}: ${note === "" ? statusOf(value) : note}`),
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
  const onDone = (instance: Instance, what: string) => setNotice(`${Format.nameOf(instance)} ${what}`)

  useEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      if (open !== undefined || event.ctrlKey || event.metaKey || event.altKey) return
      if (event.key === "Escape" && route !== undefined) return leave(route)
      if (event.target instanceof HTMLElement && event.target.closest("input, textarea, select") !== null) return
      const does = { "/": () => search.current?.focus(), n: onCreate, "?": () => setOpen({ _tag: "Keys" }) }
      const act = Object.entries(does).find(([key]) => key === event.key)?.[1]
      if (act === undefined) return
      event.preventDefault()
      act()
    }
    addEventListener("keydown", pressed)
    return () => removeEventListener("keydown", pressed)
  }, [open, route, onCreate])

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
              There is no instance {route}. <a href={home}>All instances</a>
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
          onDone={(instance, what) => {
            onDone(instance, what)
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
          onDone={(instance, what) => {
            onDone(instance, what)
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

const statusOf = ({ error, status }: Instance): string => (status === "error" ? `error: ${error}` : status)

/** Back to all instances, with the focus where it came from. */
const leave = (id: string) => {
  location.hash = home
  document.querySelector<HTMLElement>(`td.what a[href="${linkTo(id)}"]`)?.focus()
}
