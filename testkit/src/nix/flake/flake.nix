# Systems without nixpkgs: what they are is read from systems.json.
{
  description = "stand-ins for NixOS systems";
  outputs = { self }:
    let
      systems = builtins.fromJSON (builtins.readFile ./systems.json);
      platform = "x86_64-linux";
      # As a directory, so that the program keeps its name: it looks at that.
      busybox = builtins.path { path = ./busybox; name = "busybox"; } + "/bin/busybox";
      revision = self.shortRev or "dirty";
      build = name: attributes: derivation ({
        inherit name busybox;
        system = platform;
        builder = busybox;
        args = [ "sh" ./builder.sh ];
      } // attributes);
      # NAME=PATH for each, as words.
      files = texts: builtins.concatStringsSep " "
        (map (name: "${name}=${builtins.toFile name texts.${name}}") (builtins.attrNames texts));
      # A script as a file in the store, and the command that runs it.
      command = name: text: "${busybox} sh ${builtins.toFile name text}";
      unitText = unit: builtins.concatStringsSep "\n" ([
        "[Unit]" "Description=${unit.name} of a test"
      ] ++ unit.unit ++ [ "[Service]" "Type=${unit.type}" ] ++ unit.service ++
        map (key: "${key}=${command "${unit.name}-${key}" unit.scripts.${key}}") (builtins.attrNames unit.scripts) ++
        [ "" ]);
      toplevel = system:
        let kernel = build "linux-${system.kernel}" { what = "kernel"; release = system.kernel; };
        in build "nixos-system-${system.name}-${system.version}" {
          what = "system";
          inherit (system) version activation building;
          inherit kernel revision;
          initInterface = system.init_interface;
          units = files (builtins.listToAttrs
            (map (unit: { name = unit.name; value = unitText unit; }) system.units));
          wanted = builtins.concatStringsSep " " (map (unit: unit.name) (builtins.filter (unit: unit.wanted) system.units));
          etc = files system.files;
          activate = ./activate.sh;
          switch = ./switch-to-configuration.sh;
        };
    in {
      nixosConfigurations = builtins.mapAttrs (_: system: {
        config.networking.hostName = system.name;
        config.system.nixos.label = system.version;
        config.system.build.toplevel = toplevel system;
      }) systems;
    };
}
