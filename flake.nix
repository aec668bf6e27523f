# The command as a Nix package, and a shell to work on it. test/live/flake.test.ts evaluates it against a stand-in for
# nixpkgs (test/nix), and runs the command from exactly the packages of npm that this file lays out.
{
  description = "NodePass tunnels as a TypeScript program on Effect";

  inputs.nixpkgs.url = "github:nixos/nixpkgs/nixpkgs-unstable";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      inherit (lib.importJSON ./package.json) version description;

      # node_modules by system, as npm names it. All of it is written by `node scripts/flake.js`: koffi, libsql, esbuild
      # and tsc have native code for one system, so each system has a hash of its own.
      lock = "be24322502f789be2de66ebc7ba1bd44114c6b9b0ae288fc836a90a1725f0512";
      systems = {
        x86_64-linux = { os = "linux"; cpu = "x64"; hash = "sha256-yzZgobXhKeEUHox5VBDshvJ1wiB06SYPca5EPi1fbO4="; };
        aarch64-linux = { os = "linux"; cpu = "arm64"; hash = "sha256-KVPt5CDfPQ1FaacEieKJgsM8hM7WblTUieOjwNophLU="; };
        x86_64-darwin = { os = "darwin"; cpu = "x64"; hash = "sha256-zVD1a2sOsGlv49QSJTYQGsAhuLHMDW6PUcjh6Fu0gOs="; };
        aarch64-darwin = { os = "darwin"; cpu = "arm64"; hash = "sha256-tALj3XOiBAfG+LCq/WdR6qO4MgfXsFerD0sA03+ca0k="; };
      };

      each = f: lib.mapAttrs (system: _: f system nixpkgs.legacyPackages.${system}) systems;
      node = pkgs: pkgs.nodejs_22;

      # package-lock.json names no place to download from, which Nix's own ways with npm need. So npm itself fetches, from
      # the registry that is configured, and the hash of what it lays out is what makes it reproducible.
      modules = system: pkgs:
        if builtins.hashFile "sha256" ./package-lock.json != lock
        then throw "package-lock.json has changed: run `node scripts/flake.js`"
        else
          pkgs.stdenvNoCC.mkDerivation {
            name = "nodepass-effect-modules-${builtins.substring 0 12 lock}";
            src = self;
            nativeBuildInputs = [ (node pkgs) ];
            buildPhase = ''
              export HOME=$TMPDIR
              node scripts/flake.js modules ${systems.${system}.os} ${systems.${system}.cpu}
            '';
            installPhase = ''
              mkdir $out
              mv node_modules $out
            '';
            dontFixup = true;
            impureEnvVars = lib.fetchers.proxyImpureEnvVars ++ [ "npm_config_registry" ];
            outputHashMode = "recursive";
            outputHashAlgo = "sha256";
            outputHash = systems.${system}.hash;
          };

      # The bundle has everything in it but the native calls and SQLite, so the rest of node_modules stays behind.
      package = system: pkgs:
        pkgs.stdenvNoCC.mkDerivation {
          pname = "nodepass-effect";
          inherit version;
          src = self;
          nativeBuildInputs = [ (node pkgs) pkgs.makeWrapper ];
          buildPhase = ''
            cp -r ${modules system pkgs}/node_modules .
            node --input-type=module --eval 'import { build } from "./scripts/build.js"; await build()'
          '';
          installPhase = ''
            mkdir -p $out/bin $out/lib/nodepass-effect
            cp -r bin dist package.json LICENSE $out/lib/nodepass-effect
            node scripts/flake.js native ${systems.${system}.os} ${systems.${system}.cpu} $out/lib/nodepass-effect
            makeWrapper ${node pkgs}/bin/node $out/bin/nodepass --add-flags $out/lib/nodepass-effect/bin/nodepass.js
          '';
          # Native code stays as its packages have it.
          dontStrip = true;
          meta = { inherit description; license = lib.licenses.mit; mainProgram = "nodepass"; };
        };
    in
    {
      packages = each (system: pkgs: rec { nodepass-effect = package system pkgs; default = nodepass-effect; });

      apps = each (system: _: { default = { type = "app"; program = lib.getExe self.packages.${system}.default; }; });

      devShells = each (_: pkgs: { default = pkgs.mkShell { packages = [ (node pkgs) ]; }; });

      checks = each (system: pkgs: {
        package = self.packages.${system}.default;
        command = pkgs.runCommand "nodepass-version" { } "${lib.getExe self.packages.${system}.default} --version > $out";
        native = pkgs.runCommand "nodepass-native" { } ''
          cd ${self.packages.${system}.default}/lib/nodepass-effect
          ${node pkgs}/bin/node --eval 'require("koffi"); require("libsql")' > $out
        '';
      });
    };
}
