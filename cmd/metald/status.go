// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"time"

	metal3 "github.com/metal3-io/baremetal-operator/apis/metal3.io/v1alpha1"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"

	"metald.io/metald/api/v1alpha1"
)

// statusOptions is what the flags of `metald status` say.
type statusOptions struct {
	output   output
	all      bool
	selector string
	watch    bool
	wait     time.Duration
	hosts    []string
}

func newStatusCommand(a *access) *cobra.Command {
	var o statusOptions
	c := takesHosts(a, 0, &cobra.Command{
		Use: "status [HOST...]", Short: "Show where each host is, what it waits for and until when",
		Long: `Show where each host is in its life, what it waits for, until when, and its Node. With the name of one host, show all that is
known of it: conditions, its disk and what is written to it, how it leaves and what was erased, the time of each phase, the last
events, its BMC's certificate.

` + exitHelp,
		Example: `  metald status
  metald status r1n01
  metald status 'r1n[01-18]' --watch
  metald status r1n01 r1n02 --wait 20m && echo both are Ready
  metald status -o jsonpath='{.items[?(@.ready==true)].metadata.name}'`,
		RunE: func(c *cobra.Command, args []string) error {
			o.hosts = args
			if _, err := o.output.printer(); err != nil {
				return err
			}
			if _, err := labels.Parse(o.selector); err != nil {
				return usageErrorf("-l: %w", err)
			}
			if o.watch && o.wait > 0 {
				return usageErrorf("--watch and --wait do not go together")
			}
			if o.selector != "" && len(args) > 0 {
				return usageErrorf("-l and host names do not go together")
			}
			d, err := a.open()
			if err != nil {
				return err
			}
			return o.run(c.Context(), d, c.OutOrStdout(), c.ErrOrStderr())
		},
	})
	f := c.Flags()
	f.StringVarP(&o.output.format, "output", "o", "", outputHelp)
	f.BoolVar(&o.output.noHeaders, "no-headers", false, "leave out the table's first line")
	f.BoolVarP(&o.all, "all-namespaces", "A", false, "hosts of all namespaces")
	f.StringVarP(&o.selector, "selector", "l", "", "only hosts with these labels")
	f.BoolVarP(&o.watch, "watch", "w", false, "go on showing: redraws on a terminal, else one line for each change (JSON with -o json)")
	f.DurationVar(&o.wait, "wait", 0, "wait this long until all the hosts are Ready; exit 3 where they are not")
	return c
}

func (o statusOptions) run(ctx context.Context, d *door, out, errOut io.Writer) error {
	switch {
	case o.watch:
		return o.follow(ctx, d, out, errOut)
	case o.wait > 0:
		return o.await(ctx, d, out, errOut)
	}
	return o.once(ctx, d, out, errOut)
}

func (o statusOptions) once(ctx context.Context, d *door, out, errOut io.Writer) error {
	views, err := o.views(ctx, d)
	if err != nil {
		return err
	}
	if o.output.format == "" && len(o.hosts) == 1 {
		return o.page(ctx, d, out)
	}
	if len(views) == 0 && (o.output.format == "" || o.output.format == "wide") {
		where := "in namespace " + d.namespace + " (-A shows all)"
		if o.all {
			where = "yet: see 'metald import --help'"
		}
		_, err := fmt.Fprintln(errOut, "No hosts", where)
		return err
	}
	return o.print(out, views, time.Now())
}

func (o statusOptions) print(w io.Writer, views []hostView, now time.Time) error {
	p, err := o.output.printer()
	if err != nil {
		return err
	}
	if p == nil {
		return printViews(w, o.output, views, o.all, now)
	}
	list, err := viewObjects(views, len(o.hosts) == 1, o.output.format)
	if err != nil {
		return err
	}
	return p.PrintObj(list, w)
}

// views reads the hosts that were asked for, in order of their names.
func (o statusOptions) views(ctx context.Context, d *door) ([]hostView, error) {
	namespace := d.namespace
	if o.all {
		namespace = ""
	}
	var hosts []metal3.BareMetalHost
	var progress []v1alpha1.HostProgressStatus
	if len(o.hosts) > 0 {
		for _, name := range o.hosts {
			h, err := d.host(ctx, name)
			if err != nil {
				return nil, err
			}
			var p v1alpha1.HostProgress
			if err := d.beside(ctx, "hostprogresses", h.Namespace, h.Name, &p); err != nil {
				return nil, err
			}
			hosts, progress = append(hosts, *h), append(progress, p.Status)
		}
		namespace = "" // they may be in several
	} else {
		var err error
		if hosts, err = d.hosts(ctx, namespace, o.selector); err != nil {
			return nil, err
		}
		sortHosts(hosts)
		byName, err := d.progresses(ctx, namespace)
		if err != nil {
			return nil, err
		}
		for _, h := range hosts {
			progress = append(progress, deref(byName[h.Namespace+"/"+h.Name]).Status)
		}
	}
	pauses, err := d.pauses(ctx, namespace)
	if err != nil {
		return nil, err
	}
	var views []hostView
	for i := range hosts {
		v := view(&hosts[i], &v1alpha1.HostProgress{Status: progress[i]})
		v.hold(pauses.of(&hosts[i]))
		views = append(views, v)
	}
	return views, d.addAgents(ctx, views, progress, o.output.format != "" && o.output.format != "name")
}

func (o statusOptions) page(ctx context.Context, d *door, out io.Writer) error {
	h, err := d.host(ctx, o.hosts[0])
	if err != nil {
		return err
	}
	page := hostPage{host: h, progress: &v1alpha1.HostProgress{}, inventory: &v1alpha1.HostInventory{}}
	if err := d.beside(ctx, "hostprogresses", h.Namespace, h.Name, page.progress); err != nil {
		return err
	}
	if err := d.beside(ctx, "hostinventories", h.Namespace, h.Name, page.inventory); err != nil {
		return err
	}
	if page.pauses, err = d.pauses(ctx, h.Namespace); err != nil {
		return err
	}
	if page.events, err = d.events(ctx, h.Namespace, h.Name); err != nil {
		return err
	}
	return page.print(out, time.Now())
}

// events are those about one host. The server may not select by field; then all of the namespace are read.
func (d *door) events(ctx context.Context, namespace, name string) ([]corev1.Event, error) {
	var list corev1.EventList
	get := d.core.Get().Namespace(namespace).Resource("events")
	err := get.Param("fieldSelector", "involvedObject.name="+name).Do(ctx).Into(&list)
	if apierrors.IsBadRequest(err) {
		err = d.core.Get().Namespace(namespace).Resource("events").Do(ctx).Into(&list)
	}
	if err != nil {
		return nil, fmt.Errorf("listing events: %w", err)
	}
	var about []corev1.Event
	for _, e := range list.Items {
		if e.InvolvedObject.Name == name && e.InvolvedObject.Kind == "BareMetalHost" {
			about = append(about, e)
		}
	}
	return about, nil
}
