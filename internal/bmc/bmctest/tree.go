// SPDX-License-Identifier: Apache-2.0

package bmctest

import (
	"fmt"
	"net/http"
	"strings"
)

const (
	pathRoot     = "/redfish/v1"
	pathSessions = pathRoot + "/SessionService/Sessions"
	pathAccounts = pathRoot + "/AccountService"
	pathSystem   = pathRoot + "/Systems/1"
	pathChassis  = pathRoot + "/Chassis/1"
	pathManager  = pathRoot + "/Managers/1"
	pathUpdate   = pathRoot + "/UpdateService"
	pathFirmware = pathUpdate + "/FirmwareInventory"
)

// routes names every resource; each also answers HEAD, which ServeMux takes from GET.
func (b *BMC) routes() {
	b.mux.HandleFunc("GET /redfish", func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, object{"v1": pathRoot + "/"})
	})
	b.mux.HandleFunc("GET /redfish/v1/odata", func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, object{"@odata.context": pathRoot + "/$metadata", "value": []object{
			{"name": "Service", "kind": "Singleton", "url": pathRoot + "/"},
			{"name": "Systems", "kind": "Singleton", "url": pathRoot + "/Systems"},
		}})
	})
	b.mux.HandleFunc("GET /redfish/v1/$metadata", metadata)
	b.mux.HandleFunc("POST "+pathSessions, b.openSession)
	b.mux.HandleFunc("GET "+pathSessions+"/{session}", b.getSession)
	b.mux.HandleFunc("DELETE "+pathSessions+"/{session}", b.closeSession)
	b.mux.HandleFunc("GET "+pathSessions, func(w http.ResponseWriter, _ *http.Request) {
		write(w, http.StatusOK, collection(pathSessions, "SessionCollection", b.table.ids()...))
	})
	b.mux.HandleFunc("GET "+pathSystem, b.getSystem)
	b.mux.HandleFunc("PATCH "+pathSystem, b.patchSystem)
	b.mux.HandleFunc("POST "+pathSystem+"/Actions/ComputerSystem.Reset", b.reset)
	for path, o := range b.tree() {
		b.mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { write(w, http.StatusOK, o) })
	}
	b.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			fail(w, http.StatusMethodNotAllowed, "OperationNotAllowed", "The HTTP method is not allowed on this resource.")
			return
		}
		missing(w, r)
	})
}

// tree is every resource that never changes.
func (b *BMC) tree() map[string]object {
	o, d := b.options, b.machine.Description()
	t := map[string]object{
		pathRoot: resource(pathRoot+"/", "ServiceRoot.v1_16_1.ServiceRoot", "Root Service", object{
			"Id":             "RootService",
			"RedfishVersion": "1.18.0",
			"UUID":           o.UUID,
			"Vendor":         o.Vendor,
			"Product":        o.Product,
			"Systems":        link(pathRoot + "/Systems"),
			"Chassis":        link(pathRoot + "/Chassis"),
			"Managers":       link(pathRoot + "/Managers"),
			"SessionService": link(pathRoot + "/SessionService"),
			"AccountService": link(pathAccounts),
			"UpdateService":  link(pathUpdate),
			"Links":          object{"Sessions": link(pathSessions)},
		}),
		pathRoot + "/SessionService": resource(pathRoot+"/SessionService", "SessionService.v1_1_9.SessionService", "Session Service", object{
			"ServiceEnabled": true,
			"SessionTimeout": int(o.SessionTimeout.Seconds()),
			"Status":         healthy,
			"Sessions":       link(pathSessions),
		}),
		pathRoot + "/Systems":  collection(pathRoot+"/Systems", "ComputerSystemCollection", "1"),
		pathRoot + "/Chassis":  collection(pathRoot+"/Chassis", "ChassisCollection", "1"),
		pathRoot + "/Managers": collection(pathRoot+"/Managers", "ManagerCollection", "1"),
		pathChassis: resource(pathChassis, "Chassis.v1_25_0.Chassis", "Computer System Chassis", object{
			"ChassisType":     "RackMount",
			"Manufacturer":    d.Manufacturer,
			"Model":           d.Model,
			"SerialNumber":    d.SerialNumber,
			"Status":          healthy,
			"NetworkAdapters": link(pathChassis + "/NetworkAdapters"),
			"Links":           object{"ComputerSystems": []object{link(pathSystem)}, "ManagedBy": []object{link(pathManager)}},
		}),
		pathManager: resource(pathManager, "Manager.v1_19_1.Manager", "Manager", object{
			"ManagerType":     "BMC",
			"UUID":            o.UUID,
			"FirmwareVersion": o.FirmwareVersion,
			"Status":          healthy,
			"Links":           object{"ManagerForServers": []object{link(pathSystem)}, "ManagerForChassis": []object{link(pathChassis)}},
		}),
		pathUpdate: resource(pathUpdate, "UpdateService.v1_14_0.UpdateService", "Update Service", object{
			"ServiceEnabled":    true,
			"Status":            healthy,
			"FirmwareInventory": link(pathFirmware),
		}),
		pathFirmware:                     collection(pathFirmware, "SoftwareInventoryCollection", "Installed-BIOS", "Installed-BMC"),
		pathFirmware + "/Installed-BIOS": firmware("Installed-BIOS", "BIOS", d.BIOSVersion),
		pathFirmware + "/Installed-BMC":  firmware("Installed-BMC", "BMC", o.FirmwareVersion),
		pathSystem + "/Bios":             resource(pathSystem+"/Bios", "Bios.v1_2_3.Bios", "BIOS Settings", object{"Attributes": object{}}),
	}
	b.accounts(t)
	parts(t, d)
	ports(t, d)
	return t
}

func (b *BMC) accounts(t map[string]object) {
	account, role := pathAccounts+"/Accounts/1", pathAccounts+"/Roles/Administrator"
	t[pathAccounts] = resource(pathAccounts, "AccountService.v1_15_1.AccountService", "Account Service", object{
		"ServiceEnabled": true,
		"Status":         healthy,
		"Accounts":       link(pathAccounts + "/Accounts"),
		"Roles":          link(pathAccounts + "/Roles"),
	})
	t[pathAccounts+"/Accounts"] = collection(pathAccounts+"/Accounts", "ManagerAccountCollection", "1")
	t[pathAccounts+"/Roles"] = collection(pathAccounts+"/Roles", "RoleCollection", "Administrator")
	t[account] = resource(account, "ManagerAccount.v1_12_1.ManagerAccount", "User Account", object{
		"UserName": b.options.Username, "Password": nil, "RoleId": "Administrator", "Enabled": true, "Locked": false,
		"Links": object{"Role": link(role)},
	})
	t[role] = resource(role, "Role.v1_3_3.Role", "Administrator Role", object{
		"IsPredefined":       true,
		"AssignedPrivileges": []string{"Login", "ConfigureManager", "ConfigureUsers", "ConfigureComponents", "ConfigureSelf"},
	})
}

// parts adds processors, memory and storage: as many as the machine tells of, which may be none.
func parts(t map[string]object, d Description) {
	var ids []string
	for i := range d.Processors {
		id := fmt.Sprintf("CPU%d", i+1)
		ids = append(ids, id)
		path := pathSystem + "/Processors/" + id
		t[path] = resource(path, "Processor.v1_20_1.Processor", id, object{
			"ProcessorType": "CPU", "Socket": id, "Manufacturer": d.Manufacturer, "Model": "Virtual CPU",
			"ProcessorArchitecture": "x86", "TotalCores": 1, "TotalThreads": 1, "Status": healthy,
		})
	}
	t[pathSystem+"/Processors"] = collection(pathSystem+"/Processors", "ProcessorCollection", ids...)
	ids = nil
	if d.MemoryMiB > 0 {
		ids = append(ids, "DIMM1")
		path := pathSystem + "/Memory/DIMM1"
		t[path] = resource(path, "Memory.v1_20_0.Memory", "DIMM1", object{
			"MemoryType": "DRAM", "CapacityMiB": d.MemoryMiB, "VolatileSizeMiB": d.MemoryMiB, "Manufacturer": d.Manufacturer, "Status": healthy,
		})
	}
	t[pathSystem+"/Memory"] = collection(pathSystem+"/Memory", "MemoryCollection", ids...)
	t[pathSystem+"/Storage"] = collection(pathSystem+"/Storage", "StorageCollection")
}

// ports adds one adapter with one port for each MAC address, and the system's interface on it.
func ports(t map[string]object, d Description) {
	const adapters = pathChassis + "/NetworkAdapters"
	var ids []string
	for i, mac := range d.MACs {
		id := fmt.Sprintf("NIC%d", i+1)
		ids = append(ids, id)
		eth, nic, adapter := pathSystem+"/EthernetInterfaces/"+id, pathSystem+"/NetworkInterfaces/"+id, adapters+"/"+id
		t[eth] = resource(eth, "EthernetInterface.v1_12_1.EthernetInterface", id, object{
			"MACAddress": strings.ToUpper(mac), "PermanentMACAddress": strings.ToUpper(mac), "InterfaceEnabled": true, "Status": healthy,
		})
		t[nic] = resource(nic, "NetworkInterface.v1_2_2.NetworkInterface", id, object{
			"Status": healthy, "Links": object{"NetworkAdapter": link(adapter)},
		})
		t[adapter] = resource(adapter, "NetworkAdapter.v1_5_0.NetworkAdapter", id, object{
			"Manufacturer": d.Manufacturer, "Model": "Virtual Ethernet", "Status": healthy, "NetworkPorts": link(adapter + "/NetworkPorts"),
		})
		t[adapter+"/NetworkPorts"] = collection(adapter+"/NetworkPorts", "NetworkPortCollection", id)
		port := adapter + "/NetworkPorts/" + id
		t[port] = resource(port, "NetworkPort.v1_4_3.NetworkPort", id, object{
			"PhysicalPortNumber": "1", "ActiveLinkTechnology": "Ethernet", "LinkStatus": "Up",
			"AssociatedNetworkAddresses": []string{strings.ToUpper(mac)}, "Status": healthy,
		})
	}
	t[pathSystem+"/EthernetInterfaces"] = collection(pathSystem+"/EthernetInterfaces", "EthernetInterfaceCollection", ids...)
	t[pathSystem+"/NetworkInterfaces"] = collection(pathSystem+"/NetworkInterfaces", "NetworkInterfaceCollection", ids...)
	t[adapters] = collection(adapters, "NetworkAdapterCollection", ids...)
}

func firmware(id, name, version string) object {
	return resource(pathFirmware+"/"+id, "SoftwareInventory.v1_10_2.SoftwareInventory", name, object{
		"Version": version, "Updateable": false, "Status": healthy,
	})
}
